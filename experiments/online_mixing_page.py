"""The report of the study `online_mixing`: the answer in a sentence, ranking, weights over time, claims, cost."""

from __future__ import annotations

from typing import Any

import pandas as pd

from experiments import mixers
from experiments.continual import claims_table, claims_text, plain
from experiments.critical_ratio_page import cost_table
from experiments.mixer_comparison import BEST, NAMES, STRATIFIED, corrected, said
from experiments.mixer_tables import graph_table, ranking_table, trials_table, weights_by_method
from experiments.online_mixing import Findings, Settings, headline
from experiments.page import Page
from experiments.statistics import Interval
from scaling.figures import mixers as drawing
from scaling.figures.style import png
from scaling.store import Store


def ranking(found: Findings, rival: str) -> pd.DataFrame:
    """Every method less a rival, best first."""
    return ranking_table(found.gaps[rival], found.settings.domains, rival, found.strengths)


def losses_table(found: Findings) -> pd.DataFrame:
    """Mean final losses and perplexity over the fresh seeds, with the spread between seeds, best first."""
    rows = found.rows.groupby("method")
    columns = ["loss", "perplexity", *(f"loss_{domain}" for domain in found.settings.domains)]
    means = rows[columns].mean().assign(spread=rows.loss.std()).sort_values("loss").reset_index()
    return pd.DataFrame([{
        "method": NAMES.get(row["method"], row["method"]),
        "mean loss, nats/token": f"{row['loss']:.4f} (sd {row['spread']:.4f})",
        "perplexity": f"{row['perplexity']:.3f}",
        **{domain: f"{row[f'loss_{domain}']:.4f}" for domain in found.settings.domains},
    } for row in means.to_dict("records")])


def same_tokens_table(found: Findings) -> pd.DataFrame:
    """Mixers that need other runs against stratified sampling of as many tokens."""
    return pd.DataFrame([{
        "method": NAMES[row["method"]], "runs in all": row["runs"], "n": row["n"],
        "loss less stratified for as many tokens": said(Interval(row["value"], row["low"], row["high"])),
    } for row in found.same_tokens.to_dict("records")])


def answers_text(found: Findings) -> pd.DataFrame:
    """Where every mixer ends, mean over the fresh seeds."""
    return pd.DataFrame([{"mixer": NAMES[row["method"]], "strength": f"{found.strengths[row['method']]:g}",
                          **{domain: f"{row[domain]:.3f}" for domain in found.settings.domains}}
                         for row in found.answers.to_dict("records")])


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    return "\n".join([headline(found), "", ranking(found, STRATIFIED).to_string(index=False), "",
                      claims_text(found.claims)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: what was chosen, differences, claims; the study fits no law."""
    return {"headline": headline(found), **plain(found)}


def figures(store: Store, found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    s = found.settings
    table = mixers.runs_table(store, s)
    drawn = {"weights": (
        drawing.weights_over_time(weights_by_method(store, table, s, found.strengths), s.domains, found.best, BEST),
        "Weights of the mixers as they act, mean and range over the fresh seeds. The answer of DoReMi and DoGE is the "
        "mean over steps.")}
    for rival, gaps in found.gaps.items():
        shown = gaps.assign(method=gaps.method.map(lambda name: NAMES.get(name, name)))
        drawn[f"less_{rival.replace(' ', '_')}"] = (
            drawing.differences(shown, s.domains, rival, s.level),
            f"Final held-out losses less those of {rival} on the same seeds. Thin: {corrected(s):.1%} each, so that "
            "all mixers' hold together.")
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    s, drawn = found.settings, figures(store, found)
    made = Page("Does any online mixer beat stratified sampling?")
    made.paragraph(headline(found), "answer")
    made.figure(*drawn["less_stratified"])
    made.table(ranking(found, STRATIFIED))
    made.heading("Against the best static mixture")
    made.figure(*drawn["less_best_static"])
    made.table(ranking(found, BEST))
    made.heading("What the mixers do")
    made.figure(*drawn["weights"])
    made.table(answers_text(found))
    made.heading("With all tokens counted")
    made.table(same_tokens_table(found))
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.heading("Final losses")
    made.table(losses_table(found))
    made.heading("How the mixers were tuned")
    made.table(trials_table(mixers.runs_table(store, s), s, found.strengths))
    made.table(graph_table(found.graph))
    made.end(found.not_identified, [cost_table(store)], method(s))
    return made, {name: content for name, (content, _) in drawn.items()}


def method(s: Settings) -> list[str]:
    """How the numbers came about."""
    return [
        "All methods: same model, steps, batch and schedule, same initial weights for the same seed. Target: mean of "
        f"the held-out losses of {', '.join(s.domains)}, nats/token; perplexity is the mean of exp(loss) of the "
        "domains.",
        f"Tuning: {len(s.methods[0].trials)} strengths a mixer, by final loss on seeds "
        f"{', '.join(map(str, s.tuning_seeds))}; the best static mixture by the same seeds, among all shares in steps "
        f"of 1/{s.divisions}. Compared on seeds {s.seeds[0]} to {s.seeds[-1]}.",
        "DoReMi, DoGE and ScaleBiO weigh the loss: their proxy's weights (DoReMi, DoGE: mean over steps; ScaleBiO: the "
        "last) are the mixture of a final model of the same seed. ScaleBiO's proxy also trains on held-out windows, "
        "which no evaluation sees. Skill-It's graph: relative drops in runs on one domain alone.",
        "'More runs' counts, beside the final run, reference and proxy (DoReMi), the proxy (DoGE), a model that sees "
        "twice the tokens and its companion (ScaleBiO), a run on each domain (Skill-It).",
        f"Intervals: t over paired seeds, {s.level:.0%}; corrected by Bonferroni, {corrected(s):.2%} each.",
        "Made again from the store alone by python -m experiments.report.",
    ]
