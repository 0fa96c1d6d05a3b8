"""The report of the study `mixing_laws`: the best mixture by each method, its regret, how laws predict the unseen."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments import mixture_accuracy as accuracy
from experiments.continual import claims_table, claims_text, plain
from experiments.critical_ratio_page import decision_record
from experiments.mixing_laws import BEST_FOUND, NATURAL, Compared, Findings
from experiments.mixture_claims import ERROR
from experiments.mixture_methods import EXPONENTIAL, weighted
from experiments.mixture_runs import label
from experiments.page import Page
from experiments.statistics import Interval
from scaling.figures import estimates, simplex
from scaling.figures.style import png
from scaling.fitting import Decision
from scaling.store import Store


def headline(found: Findings) -> str:
    """The answer of the exponential law for the first target, and its regret, in one sentence."""
    s, (target, _) = found.settings, found.settings.targets[0]
    law, best = (_of(found, target, name) for name in (EXPONENTIAL, BEST_FOUND))
    if law is None or best is None:
        return f"No mixture of the {EXPONENTIAL} was trained for the target {target}."
    return (f"For the target {target} at width {min(s.widths)} the {EXPONENTIAL}, fitted to {s.mixtures} random "
            f"mixtures, names {_percents(law.shares)}; trained, it loses {_said(law.regret)} nats/token to "
            f"{_percents(best.shares)}, the best of {found.everywhere.mixture.nunique()} mixtures on a lattice, and "
            f"gains {_said(law.gain)} on natural shares ({s.level:.0%} intervals over {len(s.seeds)} seeds).")


def _of(found: Findings, target: str, name: str) -> Compared | None:
    return next((one for one in found.compared if (one.target, one.name) == (target, name)), None)


def _percents(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{share:.0%} {domain}" for domain, share in shares.items())


def _said(found: Interval) -> str:
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _share(decision: Decision) -> str:
    text = f"{decision.value:.1%}"
    if not math.isnan(decision.low):
        text += f" [{decision.low:.1%}, {decision.high:.1%}]"
    return text + (f", refused: {decision.refusal.kind}" if decision.refusal else "")


def compared_table(found: Findings) -> pd.DataFrame:
    """Mixtures with intervals, their loss, regret and gain, one row a target and mixture."""
    rows = []
    for one in found.compared:
        shares = {d: _share(one.best[d]) if one.best else f"{share:.1%}" for d, share in one.shares.items()}
        rows.append({"target": one.target, "mixture": one.name, **shares, "loss": f"{one.loss:.4f}",
                     "regret": "" if one.name == BEST_FOUND else _said(one.regret),
                     "gain on natural shares": "" if one.name == NATURAL else _said(one.gain)})
    return pd.DataFrame(rows)


def accuracy_table(found: Findings) -> pd.DataFrame:
    """Error and rank correlation on the lattice, by method: mixtures that hold every domain, and those that do not."""
    errors, everywhere = (accuracy.relative_errors(table) for table in (found.unseen, found.everywhere))
    edges = everywhere.drop(errors.index)
    rows = []
    for name in accuracy.predictors(found.unseen):
        rank = float(accuracy.rank_correlation(*accuracy.by_domain(found.unseen, name)))
        edge = "no answer" if edges[name].isna().any() else f"{edges[name].mean():.2%}"
        rows.append({"method": name, f"error, {len(errors)} mixtures inside": f"{errors[name].mean():.2%}",
                     "rank correlation, mean over domains": f"{rank:.3f}",
                     f"error, {len(edges)} mixtures that lack a domain": edge})
    return pd.DataFrame(rows)


def sizes_table(found: Findings) -> pd.DataFrame:
    """Mean relative error at the largest size, of laws and guesses, mean over mixtures and by domain."""
    errors = accuracy.relative_errors(found.sizes.predictions).mean()
    table = found.sizes.predictions
    rows = []
    for name, error in errors.sort_values().items():
        by_domain = (table[name] / table.measured - 1).abs().groupby(table.domain).mean()
        rows.append({"predicted by": name, "error": f"{error:.2%}",
                     **{domain: f"{value:.2%}" for domain, value in by_domain.items()}})
    spread = found.noise.sort_values("width")[found.settings.domains].iloc[-1]
    alone = spread * (2 / math.pi) ** 0.5 / table.groupby("domain").measured.mean()  # mean size of a normal deviation
    rows.append({"predicted by": "the noise of a seed alone", "error": f"{alone.mean():.2%}",
                 **{domain: f"{value:.2%}" for domain, value in alone.items()}})
    return pd.DataFrame(rows)


def known_table(found: Findings) -> pd.DataFrame:
    """Tables made from known laws: how often the intervals hold the best mixture, and what following them costs."""
    grouped = found.known.groupby(["truth", "law"], sort=False)
    return pd.DataFrame([
        {"tables made from": truth, "fitted": law, "tables": len(rows), "hold the best mixture": int(rows.inside.sum()),
         "refused": int((rows.refused != "").sum()), "regret, mean": f"{rows.regret.mean():.4f}",
         "regret, largest": f"{rows.regret.max():.4f}"} for (truth, law), rows in grouped])


def noise_table(found: Findings) -> pd.DataFrame:
    """Standard deviations over seeds."""
    return found.noise.round(4).rename(columns={"freedom": "degrees of freedom"})


def cost_table(store: Store, found: Findings) -> pd.DataFrame:
    """What the runs of each kind cost."""
    runs = store.read("runs")
    totals = runs.groupby(runs["training.seed"].map(found.settings.kinds)).agg(
        runs=("run_id", "size"), done=("status", lambda status: int((status == "done").sum())),
        tokens=("tokens", "sum"), FLOPs=("flops", "sum"), seconds=("wall_seconds", "sum"), device=("device", "first"))
    return totals.rename_axis("kind").reset_index().round({"seconds": 0}).astype({"FLOPs": "object"}).assign(
        FLOPs=totals.FLOPs.map("{:.3g}".format).to_numpy(), tokens=totals.tokens.map("{:,.0f}".format).to_numpy())


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    return "\n".join([headline(found), "", compared_table(found).to_string(index=False), "",
                      sizes_table(found).to_string(index=False), "", claims_text(found.claims)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: every fit as `Fit.from_json` reads it, mixtures and their regrets, predictions, claims, refusals."""
    fits = {f"{method.name}, {domain}": fit for method in found.methods.values() for domain, fit in method.fits.items()}
    compared = [{"target": one.target, "name": one.name, "shares": one.shares, "loss": one.loss,
                 "best": {d: decision_record(decision) for d, decision in (one.best or {}).items()},
                 "by_seed": one.by_seed, "regret": one.regret, "gain": one.gain} for one in found.compared]
    return {"headline": headline(found), **plain({
        "settings": found.settings, "compared": compared, "unseen": found.everywhere, "few": found.few,
        "held_out_size": found.sizes.predictions, "known": found.known, "noise": found.noise,
        "claims": [dataclasses.asdict(claim) for claim in found.claims], "not_identified": found.not_identified,
        "fits": {name: fit.to_json() for name, fit in {**fits, **found.sizes.fits}.items()}})}


def figures(found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    s = found.settings
    regrets = {f"target {target}": pd.DataFrame([
        {"name": one.name, "value": one.regret.value, "low": one.regret.low, "high": one.regret.high,
         "values": one.by_seed.regret.to_numpy()}
        for one in found.compared if one.target == target and one.name != BEST_FOUND]) for target, _ in s.targets}
    methods, laws = (accuracy.predictors(table) for table in (found.unseen, found.sizes.predictions))
    drawn = {
        "regret": (estimates.by_name(regrets, "regret, nats/token", s.tolerance),
                   f"Loss of each mixture less that of the best of the lattice, at width {min(s.widths)}, both "
                   f"trained again with {len(s.seeds)} new seeds (grey), and the {s.level:.0%} interval of the mean. "
                   "Dashed: the tolerance."),
        "unseen": (estimates.agreement(found.unseen, methods),
                   f"Mixtures of the lattice that hold every domain, width {min(s.widths)}: the loss that each method "
                   f"predicts from the {s.mixtures} random mixtures against the mean over seeds."),
        "held_out_size": (estimates.agreement(found.sizes.predictions, laws),
                          f"Width {max(s.widths)}: losses of the random mixtures as laws and guesses from smaller "
                          "sizes have them, against one run each."),
        "few": (estimates.error_by_count(found.few, ERROR, "random mixtures learned from"),
                f"Error of the mixture term on these mixtures, width {min(s.widths)}, by how many of the random "
                "mixtures it was fitted to."),
    }
    if len(s.domains) == 3:
        drawn = {"landscape": (_landscape(found), f"Target loss on the lattice at width {min(s.widths)}, mean over "
                               f"{len(s.lattice_seeds)} seeds (grey dots, contours in nats/token above the least), the "
                               "mixture that each law names, and in faint dots those of its bootstrap draws."), **drawn}
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def _landscape(found: Findings) -> Any:
    s, lattice = found.settings, accuracy.lattice_means(found.table, found.settings)
    losses = {f"target {target}": weighted(lattice, s.weights(target)) for target, _ in s.targets}
    marks: dict[str, dict[str, simplex.Mark]] = {key: {} for key in losses}
    for one in found.compared:
        decisions = [one.best[domain] for domain in s.domains] if one.best else []
        draws = np.stack([decision.draws_B for decision in decisions], axis=1) if decisions else np.zeros((0, 3))
        place = [decision.value for decision in decisions] or [one.shares[domain] for domain in s.domains]
        marks[f"target {one.target}"][one.name] = simplex.Mark(np.array(place), draws)
    return simplex.landscape(s.domains, lattice[s.domains].to_numpy(), losses, marks)


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    drawn = figures(found)
    made = Page(f"Which mixture of {', '.join(found.settings.domains)} is best, and do mixture laws find it?")
    made.paragraph(headline(found), "answer")
    made.heading("The best mixture by each method, trained")
    for name in ("landscape", "regret"):
        if name in drawn:
            made.figure(*drawn[name])
    made.table(compared_table(found))
    made.heading("Mixtures that no fit saw, same size")
    made.figure(*drawn["unseen"])
    made.table(accuracy_table(found))
    made.figure(*drawn["few"])
    made.heading("A size that no fit saw")
    made.figure(*drawn["held_out_size"])
    made.table(sizes_table(found))
    made.heading("Tables with a known best mixture")
    made.table(known_table(found))
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.heading("Noise: standard deviation of a loss over seeds, nats/token, by width")
    made.table(noise_table(found))
    fits = {f"{method.name}, {domain}": fit.summary() for method in found.methods.values()
            for domain, fit in method.fits.items()}
    made.end(found.not_identified, [cost_table(store, found)], method_of(found), fits)
    return made, {name: content for name, (content, _) in drawn.items()}


def method_of(found: Findings) -> list[str]:
    """How the numbers came about."""
    s = found.settings
    return [
        f"{s.mixtures} random mixtures, drawn as RegMix draws them (strengths {s.strengths[0]:g} to "
        f"{s.strengths[1]:g}), each with a seed of its own, at width {min(s.widths)}, the first {s.sized} of them also "
        f"at widths {', '.join(map(str, s.widths[1:]))}; a lattice of steps 1/{s.divisions} with seeds "
        f"{', '.join(map(str, s.lattice_seeds))} at width {min(s.widths)}. Fits see the random mixtures alone.",
        "Rate: inverse square root of the step, so that a checkpoint is the end of a run of its own length. Losses are "
        "nats a token on held-out windows of each domain; a target is a weighted sum: " + "; ".join(
            f"{target}: {label(dict(weights))}" for target, weights in s.targets) + ".",
        "Exponential law and regressions: last losses of the smallest size. BiMix: that size, all logged steps. "
        "Additive and joint law: all sizes and logged steps, read at the smallest size. Huber on log loss; intervals: "
        f"bootstrap over runs, {s.bootstrap} draws. Least squares and trees look for the best among 100,000 mixtures "
        "drawn like the random ones and average the best 128, as RegMix does.",
        "Unseen mixtures: those of the lattice that hold every domain; where one lacks, BiMix has no answer and the "
        "additive and joint laws, fitted to mixtures that hold all, extrapolate.",
        "Regret and gain pair the seeds; Student's interval over them. The best of the lattice was chosen by its loss "
        "at other seeds, so that no lucky run of its own counts here.",
        "Tables with a known best mixture: experiments/simulated_mixtures.py has the formulas; noise as between our "
        "seeds, simultaneous intervals of all shares (Bonferroni).",
        "Made again from the store alone by python -m experiments.report.",
    ]
