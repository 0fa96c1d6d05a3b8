"""The report of the study `merge_proxy`: the answer in a sentence, figures, claims, cost, what is not identified."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.continual import MEAN, claims_table, claims_text, plain, said
from experiments.merge_proxy import (
    CROSSED,
    INSIDE,
    LOSSES,
    MERGED,
    OUTSIDE,
    Cube,
    Findings,
    Settings,
    cost_ratio,
    headline,
    losses,
)
from experiments.page import Page
from experiments.statistics import Interval
from scaling.figures import merging, simplex
from scaling.figures.style import png
from scaling.store import Store


def correlations_table(found: Findings) -> pd.DataFrame:
    """Both correlations, one row a length, domain and predictor."""
    return pd.DataFrame([
        {"steps": row.steps, "loss of": row.domain, "predictor": row.predictor, "mixtures": row.mixtures,
         "Spearman": said(Interval(row.spearman, row.low, row.high), ""),
         "Pearson": said(Interval(row.pearson, row.pearson_low, row.pearson_high), "")}
        for row in found.correlations.to_records(index=False)])


def _by_length(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Estimates with intervals, one column a length."""
    text = [said(Interval(row.value, row.low, row.high), "") for row in rows.to_records(index=False)]
    columns = rows.steps.map("{:d} steps".format)
    wide = rows.assign(text=text, columns=columns).pivot_table(index=keys, columns="columns", values="text",
                                                               aggfunc="first", sort=False)
    return wide.reset_index().rename_axis(columns=None)


def choices_table(found: Findings) -> pd.DataFrame:
    """What each predictor's choice loses, nats/token."""
    return _by_length(found.choices, ["predictor"]).rename(columns={"predictor": "chosen by"})


def levels_table(found: Findings) -> pd.DataFrame:
    """Losses of averages less those of trained models and of the seed checkpoint."""
    return _by_length(found.levels, ["predictor", "domain", "against"]).rename(
        columns={"predictor": "average of", "domain": "loss of", "against": "less that of"})


def cost_table(found: Findings) -> pd.DataFrame:
    """Runs, FLOPs, seconds."""
    return found.costs.assign(flops=found.costs.flops.map("{:.3g}".format),
                              seconds=found.costs.seconds.map("{:.0f}".format)).rename(columns={"flops": "FLOPs"})


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    return "\n".join([headline(found), "", correlations_table(found).to_string(index=False), "",
                      claims_text(found.claims)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: correlations, choices, levels, costs, claims; the study fits no law."""
    return {"headline": headline(found), **plain(found)}


def figures(store: Store, found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    s = found.settings
    cube = Cube(losses(store), s.longest)
    domains = [*cube.domains, MEAN]
    every = f"every mixture and seed, {s.longest} steps"
    drawn = {
        "merged": (merging.agreement(_points(cube, MERGED), domains, "the average of modules"),
                   f"Modules from one seed checkpoint: {every}. On the dashed line both losses are equal."),
        "crossed": (merging.agreement(_points(cube, CROSSED), domains, "the average of modules"),
                    f"Modules from seed checkpoints of different seeds: {every}. Note the losses of the averages."),
        "correlations": (merging.coefficients(found.correlations, s.strong),
                         f"Rank correlation over mixtures, mean over seeds, {s.level:.0%} interval over both. Dashed: "
                         f"{s.strong:g}, called strong before the runs."),
    }
    if len(cube.domains) == 3:
        drawn["simplex"] = (_simplex(cube), "Mean loss of the domains by mixture, mean over seeds, as contours above "
                                            "the least of each panel.")
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def _simplex(cube: Cube) -> Figure:
    """Losses over the mixtures, trained and predicted, with the best mixture by each."""
    shown = {"trained on the mixture": cube.truth(MEAN), **{
        name: cube.predicted(name, MEAN) for name in (MERGED, LOSSES)}}
    losses_by = {name: loss_SxM.mean(axis=0) for name, loss_SxM in shown.items()}
    marks = {f"best, {name}": simplex.Mark(cube.shares_MxK[loss_M.argmin()], np.empty((0, 3)))
             for name, loss_M in losses_by.items()}
    return simplex.landscape(cube.domains, cube.shares_MxK, losses_by, dict.fromkeys(losses_by, marks))


def _points(cube: Cube, predictor: str) -> pd.DataFrame:
    """Rows of `figures.merging.agreement`."""
    parts = []
    for k, domain in enumerate([*cube.domains, MEAN]):
        proxy_SxM, truth_SxM = cube.pair(predictor, domain)[0]
        share_M = cube.shares_MxK.max(axis=1) if domain == MEAN else cube.shares_MxK[:, k]
        parts.append(pd.DataFrame({
            "domain": domain, "equal": domain == MEAN, "share": np.tile(share_M, len(proxy_SxM)),
            "proxy": proxy_SxM.ravel(), "truth": truth_SxM.ravel()}))
    return pd.concat(parts, ignore_index=True)


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    drawn = figures(store, found)
    made = Page("Do averages of modules rank mixtures as models trained on the mixtures do?")
    made.paragraph(headline(found), "answer")
    for name in drawn:
        made.figure(*drawn[name])
    made.paragraph(single_domains(found))
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.heading("What a choice by each predictor loses, mean of domains, nats/token")
    made.table(choices_table(found))
    made.heading("Correlations with trained models")
    made.table(correlations_table(found))
    made.heading("Levels of averages, mean over mixtures, nats/token")
    made.table(levels_table(found))
    made.heading("Cost after the seed checkpoints")
    made.table(cost_table(found))
    made.paragraph(cost_text(found))
    made.heading("What is not identified")
    made.items(found.not_identified)
    made.heading("Method")
    made.items(method(found.settings))
    return made, {name: content for name, (content, _) in drawn.items()}


def single_domains(found: Findings) -> str:
    """How much of the ranking of single domains' losses needs no merging."""
    rows = found.correlations[found.correlations.steps == found.settings.longest].set_index("domain")
    single = rows.drop(index=[MEAN, INSIDE, OUTSIDE]).set_index("predictor").spearman
    merged, averaged = (f"{single[name].min():.3f} to {single[name].max():.3f}" for name in (MERGED, LOSSES))
    return (f"For the loss of one of the domains, which follows its share, merged modules have rank correlations of "
            f"{merged} and the plain average of the modules' losses, which needs no merging, {averaged}. What merging "
            "adds is to be seen on the mean of domains, where gains are weighed against losses.")


def cost_text(found: Findings) -> str:
    """Both ways in words, with how either grows."""
    s = found.settings
    rows = found.costs[found.costs.steps == s.longest].set_index("way")
    one = rows.flops / rows.runs
    mixtures, merged = "models trained on mixtures", "merged models, evaluated"
    return (f"At {s.longest} steps, training every mixture took {cost_ratio(found, 'flops'):.1f} times the FLOPs and "
            f"{cost_ratio(found, 'seconds'):.1f} times the seconds of training the modules and evaluating one average "
            f"a mixture. One more mixture costs {one[mixtures]:.3g} FLOPs trained and {one[merged]:.3g} as an average; "
            f"one more partition costs {one['modules']:.3g} as a module, and trained it costs every mixture that "
            "holds it.")


def method(s: Settings) -> list[str]:
    """How the numbers came about."""
    return [
        "Seed checkpoints: trained on equal shares of all domains at a constant rate. Modules and models of mixtures "
        "go on from there, optimizer kept, with a rate that falls linearly to 0; every length is a run of its own.",
        f"Mixtures: multiples of 1/{s.divisions} of two or more domains. A mixture's average has its shares as "
        "weights; averages are taken in float64 and evaluated before any step. Modules of different starts: each "
        "domain's from the checkpoint of another seed.",
        "A correlation is over mixtures within a seed, then averaged over seeds. Intervals: seeds and mixtures drawn "
        f"again, {s.bootstrap} draws, percentiles widened for few of either, {s.level:.0%}.",
        "A choice is made by one seed's proxy and scored by the models that the other seeds trained; the best mixture "
        "of those is the zero, which favours itself a little. 'Trained with another seed': the choice by the seed's "
        "own trained models, scored likewise.",
        "A domain outside: for each domain its loss among the mixtures without it; the correlations are averaged. None "
        "outside: the mixtures that hold every domain.",
        "FLOPs of an evaluation: a third of a training step's for each held-out token. Seconds of averages hold one "
        "step at rate 0 and two evaluations.",
        "Made again from the store alone by python -m experiments.report.",
    ]
