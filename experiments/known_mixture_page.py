"""The report of the study `known_mixture`: the answer in a sentence, the triangle, weights, claims, construction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments import mixers
from experiments.continual import claims_table, claims_text, plain
from experiments.critical_ratio_page import cost_table
from experiments.known_mixture import KNOWN, Findings, Settings, distance, headline
from experiments.mixer_comparison import NAMES, STRATIFIED, corrected
from experiments.mixer_tables import graph_table, ranking_table, trials_table, weights_by_method
from experiments.mixers import equal_shares
from experiments.page import Page
from scaling.figures import mixers as drawing
from scaling.figures.simplex import Mark, landscape
from scaling.figures.style import png
from scaling.fitting import Decision
from scaling.store import Store

_MOST_DRAWS = 200  # of a law, shown


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    return "\n".join([headline(found), "", answers_text(found).to_string(index=False), "", claims_text(found.claims)])


def answers_text(found: Findings) -> pd.DataFrame:
    """Where every mixer ends, mean over the fresh seeds, nearest first."""
    s = found.settings
    means = found.answers.groupby("method")[[*s.domains, "distance"]].mean().sort_values("distance")
    return pd.DataFrame([{"mixer": NAMES[str(name)], "strength": f"{found.strengths[str(name)]:g}",
                          **{domain: f"{row[domain]:.3f}" for domain in s.domains}, "distance": f"{row.distance:.3f}"}
                         for name, row in means.iterrows()])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: fits, what each law calls best, answers, differences, claims."""
    fits = {f"{name}, {domain}": fit.to_json() for name, law in found.laws.items() for domain, fit in law.fits.items()}
    best = {name: {domain: {key: getattr(one, key) for key in ("value", "low", "high", "level")}
                   for domain, one in shares.items()} for name, shares in found.best.items()}
    return {"headline": headline(found), "fits": fits, **plain({
        "settings": found.settings, "best": best, "strengths": found.strengths, "graph": found.graph,
        "lattice": found.lattice, "answers": found.answers, "differences": found.differences, "claims": found.claims,
        "not_identified": found.not_identified})}


def figures(store: Store, found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    s = found.settings
    table = mixers.runs_table(store, s)
    named = {**NAMES, KNOWN: KNOWN}
    shown = found.differences.assign(method=found.differences.method.map(lambda name: named.get(name, name)))
    answers = found.answers.assign(method=found.answers.method.map(NAMES))
    target = "mean loss"
    drawn = {
        "triangle": (landscape(s.domains, found.lattice[s.domains].to_numpy(), {target: found.lattice.loss.to_numpy()},
                               {target: marks(found)}),
                     "Measured mean loss on the lattice as contours, and where laws (small dots: draws) and mixers "
                     "(small dots: seeds) put the best mixture."),
        "weights": (drawing.weights_over_time(weights_by_method(store, table, s, found.strengths), s.domains,
                                              dict(s.best), KNOWN),
                    "Weights of the mixers as they act, mean and range over the fresh seeds. The answer of DoReMi and "
                    "DoGE is the mean over steps."),
        "distances": (drawing.distances(answers, distance(equal_shares(s.domains), s)),
                      "Distance of each mixer's answer to the best mixture, a dot a seed."),
        "differences": (drawing.differences(shown, s.domains, STRATIFIED, s.level),
                        f"Final held-out losses less stratified sampling's on the same seeds. Thin: {corrected(s):.1%} "
                        "each, so that all hold together."),
    }
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def marks(found: Findings) -> dict[str, Mark]:
    """The best mixture, equal shares, what the laws call best with draws, the mixers' mean answers with seeds."""
    s = found.settings
    none = np.empty((0, 3))
    laws = {name: Mark(np.array([best[d].value for d in s.domains]), _draws(best)) for name, best in found.best.items()}
    ends = {NAMES[str(name)]: Mark(own[s.domains].to_numpy().mean(axis=0), own[s.domains].to_numpy())
            for name, own in found.answers.groupby("method")}
    return {KNOWN: Mark(np.array([share for _, share in s.best]), none),
            STRATIFIED: Mark(np.array(list(equal_shares(s.domains).values())), none), **laws, **ends}


def _draws(best: Mapping[str, Decision]) -> np.ndarray:
    return np.stack([one.draws_B[:_MOST_DRAWS] for one in best.values()], axis=1)


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    s, drawn = found.settings, figures(store, found)
    table = mixers.runs_table(store, s)
    made = Page("Do mixture laws and online mixers find a best mixture that is known?")
    made.paragraph(headline(found), "answer")
    made.figure(*drawn["triangle"])
    made.heading("Where the mixers end")
    made.table(answers_text(found))
    for name in ("distances", "weights"):
        made.figure(*drawn[name])
    made.heading("What it is worth")
    made.figure(*drawn["differences"])
    made.table(ranking_table(found.differences, s.domains, STRATIFIED, found.strengths))
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.heading("How the mixers were tuned")
    made.table(trials_table(table, s, found.strengths))
    made.table(graph_table(found.graph))
    fits = {f"{name}, {domain}": fit.summary() for name, law in found.laws.items() for domain, fit in law.fits.items()}
    made.end(found.not_identified, [cost_table(store)], method(s), fits)
    return made, {name: content for name, (content, _) in drawn.items()}


def method(s: Settings) -> list[str]:
    """The construction and how the numbers came about."""
    first, second = s.languages
    return [
        f"{first} and {second} are one Markov chain in two alphabets, a quarter of their documents independent uniform "
        f"letters of a third; {s.noise} is documents of that third alphabet alone. Nothing of {first} can be learnt "
        f"from {second}; the noise can be learnt from either as well as from {s.noise}. So tokens of {s.noise} are "
        "lost, and equal shares of two equally hard languages are best where loss is convex in them.",
        "The target is the mean of the three held-out losses, which every mixer here aims at too.",
        f"Laws: fitted to {s.mixtures} random mixtures, a seed each; bootstrap over mixtures, {s.bootstrap} draws, "
        f"{s.level:.0%}.",
        f"Mixers: {len(s.methods[0].trials)} strengths each on {len(s.tuning_seeds)} tuning seeds, the one with the "
        f"least final loss then on {len(s.seeds)} fresh seeds. DoReMi, DoGE and ScaleBiO are proxies: their weights "
        "are the mixture of a final model of the same seed. 'More runs' counts what that costs beside the final run; "
        "Aioli's probes are steps of its run.",
        "Made again from the store alone by python -m experiments.report.",
    ]
