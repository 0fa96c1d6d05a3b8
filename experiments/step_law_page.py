"""The report of the study `step_law`: the regret in a sentence, maps of the sweep, laws, claims, refusals."""

from __future__ import annotations

from typing import Any

import pandas as pd

from experiments.continual import claims_table, claims_text, plain
from experiments.critical_ratio_page import cost_table, decision_record
from experiments.page import Page
from experiments.published.steplaw import WITHIN, selected
from experiments.statistics import t_interval
from experiments.step_law import BEST, LAW, Findings, at_edges, best_cells, grid_regrets, regret_by_seed
from scaling.figures import estimates, step_law
from scaling.figures.style import png
from scaling.store import Store


def headline(found: Findings) -> str:
    """The answer in one sentence."""
    s = found.settings
    value, low, high = (100 * end for end in t_interval(regret_by_seed(found.regrets, LAW), s.level))
    fit = found.fits["step-law"]
    refused = f" (refused: {', '.join(sorted({r.kind for r in fit.refusals}))})" if fit.refusals else ""
    return (f"The best rate goes as N^{-fit.parameters['a']:.2f} D^{fit.parameters['b']:.2f}{refused}; fitted without "
            f"the largest size, the laws of rate and batch cost {value:.2f}% of the loss there ({s.level:.0%} interval "
            f"{low:.2f}% to {high:.2f}%, {len(s.fresh_seeds)} fresh seeds) against the best of its own grid.")


def exponents_table(found: Findings) -> pd.DataFrame:
    """Exponents with intervals, ours and the paper's."""
    return pd.DataFrame([{"exponent": own.name, "ours": f"{own.value:+.3f} [{own.low:+.3f}, {own.high:+.3f}]",
                          "seeds alone": ", ".join(f"{value:+.2f}" for value in own.seeds),
                          "Li et al. 2025": f"{own.published:+.3f}"} for own in found.exponents])


def regrets_table(found: Findings) -> pd.DataFrame:
    """What each way recommends at the largest size, and its loss and regret over fresh seeds."""
    rows = []
    for trial in found.trials:
        own = found.regrets[(found.regrets.way == trial.way) & (found.regrets.tokens == trial.tokens)]
        interval = [100 * end for end in t_interval(own.regret, found.settings.level)]
        regret = "0, by definition" if trial.way == BEST else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*interval)
        rows.append({"tokens": f"{trial.tokens:,}", "way": trial.way, "peak": f"{trial.rate:.4g}",
                     "batch, windows": f"{trial.batch}", "loss, nats/token": f"{own.loss.mean():.4f}",
                     "regret, %": regret})
    return pd.DataFrame(rows)


def optima_table(found: Findings) -> pd.DataFrame:
    """The quadratic's optimum of every setting beside its best cell and the law's regret on the grid."""
    regrets, rows = grid_regrets(found), []
    for cell in best_cells(found.cells).to_dict("records"):
        setting = cell["setting"]
        row = {"setting": setting, "best cell": f"{cell['lr']:.3g}, {cell['batch']:g} tokens"}
        for name, decision in found.optima[setting].at.items():
            refused = f", refused: {decision.refusal.kind}" if decision.refusal else ""
            row[f"quadratic, {name}"] = f"{decision.value:.3g} [{decision.low:.3g}, {decision.high:.3g}]{refused}"
        rows.append({**row, "law's nearest cell, regret %": f"{100 * regrets[setting]:.2f}"})
    return pd.DataFrame(rows)


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    tables = (exponents_table(found), regrets_table(found))
    return "\n".join([headline(found), *("\n" + table.to_string(index=False) for table in tables), "",
                      claims_text(found.claims)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: every fit as `Fit.from_json` reads it, optima, exponents, regrets, claims and refusals."""
    parts = ("settings", "diverged", "exponents", "trials", "regrets", "claims", "not_identified")
    fits = {**found.fits, **{f"{name}, largest size held out": fit for name, fit in found.smaller.items()}}
    return {"headline": headline(found), **{name: plain(getattr(found, name)) for name in parts},
            "optima": {setting: {name: decision_record(decision) for name, decision in optimum.at.items()}
                       for setting, optimum in found.optima.items()},
            "fits": {name: fit.to_json() for name, fit in fits.items()}}


def figures(found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    s, cells = found.settings, found.cells
    best = best_cells(cells)
    law = best.assign(lr=found.fits["step-law"].predict(best), batch=found.fits["step-law-batch"].predict(best))
    points = pd.concat([best.assign(name="best cell"), law.assign(name="law")])
    ways = [way for way in dict.fromkeys(found.regrets.way) if way != BEST]
    tables = {}
    for tokens, rows in found.regrets.groupby("tokens"):
        shown = []
        for way in ways:
            percent = 100 * rows[rows.way == way].regret
            shown.append({"name": way, **t_interval(percent, s.level)._asdict(), "values": percent.to_numpy()})
        tables[f"{tokens:,} tokens"] = pd.DataFrame(shown)
    drawn = {
        "excess": (step_law.excess_maps(cells, points),
                   f"Excess of the held-out loss over the best of its setting, mean of {len(s.seeds)} seeds; a cross: "
                   "a run diverged. The law is that of all sizes."),
        "best_rates": (step_law.best_rates(selected(cells), found.fits["step-law"], found.fits["step-law-batch"]),
                       f"Cells within {WITHIN:.2%} of the best of their setting, which the laws are fitted to."),
        "regret": (estimates.by_name(tables, "regret at the largest size, %", 100 * WITHIN),
                   "Excess loss over the best of the grid at the size that no law saw, dots: fresh seeds; dashed: what "
                   "the paper counts as optimal."),
    }
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    drawn = figures(found)
    made = Page("Which learning rate and batch, and does the law hold one size up?")
    made.paragraph(headline(found), "answer")
    made.heading("Regret at a size the law never saw")
    made.figure(*drawn["regret"])
    made.table(regrets_table(found))
    made.heading("The best rate and batch")
    made.figure(*drawn["excess"])
    made.figure(*drawn["best_rates"])
    made.table(exponents_table(found))
    made.table(optima_table(found))
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.end(found.not_identified, [cost_table(store)], method(found),
             {name: fit.summary() for name, fit in found.fits.items()})
    return made, {name: content for name, (content, _) in drawn.items()}


def method(found: Findings) -> list[str]:
    """How the numbers came about."""
    s, edges, settings = found.settings, at_edges(found.cells), len(found.optima)
    return [
        f"Grid: widths {', '.join(map(str, s.widths))}, tokens {', '.join(f'{n:,}' for n in s.tokens)}, batches of "
        f"{', '.join(map(str, s.batches))} windows, peaks {', '.join(f'{rate:g}' for rate in s.rates)}, "
        f"{len(s.seeds)} seeds; AdamW, warm-up over {s.warmup:.0%} of the steps (the paper: 2000 steps), cosine to a "
        f"floor of {s.floor:g} at every peak (the paper: 1e-5; as there, about a hundredth of the best rates).",
        f"{found.diverged} runs of the grid diverged; a cell with one is never near the best.",
        f"Of {settings} settings, {edges['lr']} have their best cell at an end of the rates, {edges['batch']} at an "
        "end of the batches: there the law is fitted to less than the optimum, and its exponents are too small.",
        f"Laws: least squares of logs over the cells within {WITHIN:.2%} of the best mean held-out loss of their "
        "setting; the paper takes the smoothed training loss. The quadratic in log rate and log batch stands beside "
        "it, and enters no claim.",
        f"Intervals of exponents: the wider of {s.bootstrap} resamples of settings and Student's over seeds, each "
        f"seed's runs fitted alone, {s.level:.0%}. Intervals of regret: Student's over fresh seeds.",
        "Regret at the largest size: the law's own rate, and the swept batch nearest to the law's; the best of that "
        "size's grid is chosen by the grid's seeds and trained again with fresh ones, so that its luck does not count.",
        "Made again from the store alone by python -m experiments.report.",
    ]
