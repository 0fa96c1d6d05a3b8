"""The report of the study `upsample_upweight`: the answer in a sentence, figures, claims, what is not identified."""

from __future__ import annotations

from typing import Any

import pandas as pd

from experiments.continual import claims_table, claims_text, plain, said
from experiments.critical_ratio_page import cost_table
from experiments.page import Page
from experiments.statistics import Interval
from experiments.upsample_upweight import MEAN, Findings, Settings, gaps, headline, labelled, losses, way_text
from scaling.figures import temperature
from scaling.figures.style import png
from scaling.store import Store


def _said(value: Any, row: Any) -> str:
    return said(Interval(value, row.low, row.high), "")


def ways_table(found: Findings) -> pd.DataFrame:
    """Every way of the sweep at its end."""
    s = found.settings
    shown = found.ways.rename(columns={MEAN: "mean"})
    return pd.DataFrame([
        {"way": way_text(row), "n": row.n, f"epochs of {s.low}": f"{row.epochs:.1f}",
         **{f"{domain} loss": f"{getattr(row, domain):.3f}" for domain in (*s.by_name, "mean")},
         f"{s.low} lowest at step": row.best_step, "rise from there": _said(row.rise, row)}
        for row in shown.itertuples()])


def speed_table(found: Findings) -> pd.DataFrame:
    """By how much sampling is ahead early, a row a temperature."""
    shown = found.speed.assign(text=[_said(row.value, row) for row in found.speed.itertuples()])
    return shown.pivot(index=["tau", "n"], columns="domain", values="text").reset_index().rename(columns={"tau": "τ"})


def equality_table(found: Findings) -> pd.DataFrame:
    """Largest differences of plain descent."""
    return pd.DataFrame([
        {"batch": "all windows" if row.whole else "stochastic", "τ": f"{row.tau:g}", "pairs of runs": row.n,
         "loss, nats/token": f"{row.loss:.1e}", "gradient norm, relative": f"{row.norm:.1e}"}
        for row in found.equality.itertuples()])


def variance_table(found: Findings) -> pd.DataFrame:
    """Ratios of variances beside the second moments of the weights."""
    return pd.DataFrame([
        {"state": row.state, "windows of a batch": row.batch, "τ": f"{row.tau:g}", "n": row.n,
         "Σ w²/p": f"{row.factor:.2f}",
         "variance, scalarization over sampling": f"{row.ratio:.2f} [{row.low:.2f}, {row.high:.2f}]"}
        for row in found.variance.itertuples()])


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    return "\n".join([headline(found), "", variance_table(found).to_string(index=False), "",
                      ways_table(found).to_string(index=False), "", claims_text(found.claims)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: tables and claims; the study fits no law."""
    return {"headline": headline(found), **plain(found)}


def figures(store: Store, found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    s = found.settings
    table = losses(store, labelled(store, s))
    large = max(s.by_name, key=s.by_name.__getitem__)
    drawn = {
        "equality": (temperature.gap_curves(gaps(table), s.tolerance),
                     "Temperature sampling and scalarization from the same weights, by plain descent: largest "
                     f"difference of a held-out loss over {len(s.seeds)} seeds and {len(s.sizes)} domains."),
        "variance": (temperature.variance_ratios(found.variance),
                     "Variance of a batch's gradient at fixed states, scalarization over sampling; "
                     f"{s.level:.0%} interval over seeds."),
        "curves": (temperature.curves_by_way(_lines(table, s), f"{s.low} loss, nats/token"),
                   f"Held-out loss of the smallest domain, {s.low}: mean and range over seeds."),
        "trade": (temperature.trade(_marked(found.ways), large, s.low),
                  "Losses at the end, means over seeds. Lower and to the left is better."),
    }
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def _lines(table: pd.DataFrame, s: Settings) -> dict[str, dict[str, pd.DataFrame]]:
    """Curves of the smallest domain by way and temperature or switch."""
    rows = table[(table.part == "sweep") & (table.domain == s.low)]
    titles = {"sampling": "temperature sampling", "scalarization": "scalarization",
              "cooldown": f"Cooldown from τ = {s.high:g} to 1"}
    return {title: {str(label): part for label, part in _marked(rows[rows.way == way]).groupby("label", sort=False)}
            for way, title in titles.items()}


def _marked(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of ways with a short label, in order of temperature and switch; scalarization at the sweep's own rate."""
    shown = rows[rows.rate == 1].sort_values(["tau", "switch"])
    cooled = "at " + shown.switch.map("{:.1%}".format)
    return shown.assign(label=cooled.where(shown.way == "cooldown", "τ = " + shown.tau.map("{:g}".format)))


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    s, drawn = found.settings, figures(store, found)
    made = Page("Show a small domain more often, or weigh its loss up?")
    made.paragraph(headline(found), "answer")
    made.heading("The same full gradient, another variance")
    made.figure(*drawn["equality"])
    made.table(equality_table(found))
    made.figure(*drawn["variance"])
    made.table(variance_table(found))
    made.heading("What it does to training")
    made.figure(*drawn["curves"])
    made.figure(*drawn["trade"])
    made.table(ways_table(found))
    made.paragraph(f"Loss after {s.early_step} steps, scalarization less sampling, nats/token, {s.level:.0%} interval:")
    made.table(speed_table(found))
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.end(found.not_identified, [cost_table(store)], method(s))
    return made, {name: content for name, (content, _) in drawn.items()}


def method(s: Settings) -> list[str]:
    """How the numbers came about."""
    sizes = ", ".join(f"{name} {size * s.unit:,.0f}" for name, size in s.sizes)
    pool = ", ".join(f"{name} {size * s.pool_unit:,.0f}" for name, size in s.sizes)
    return [
        f"Windows of the sweep: {sizes}; AdamW without clipping, one cosine. Shares w ∝ windows^(1/τ), p those of the "
        "data. Scalarization draws by p and multiplies a window's loss by w/p, so that the mean weight is 1.",
        f"Windows of the pool, for gradients: {pool}. At τ = {', '.join(f'{tau:g}' for tau in s.whole)} a batch with "
        "each window in a whole number of copies has the shares w exactly: its gradient is scalarization's over all "
        f"windows. Plain descent at rate {s.descent_rate:g}, {s.descent_steps} steps: AdamW without moments, whose ε "
        "is so far above the gradient that the update is a multiple of it; the logged rate is that multiple times ε.",
        "Variance: E|g|² - |G|² from the norm of every batch's gradient at rate 0, |G| over all windows at once; "
        f"{s.frozen_passes} passes over the pool in batches of {s.pool_batch}, one window by window. States: fresh "
        f"weights, and those after {s.pool_passes} passes over the pool by AdamW at τ = 1. Ratios are geometric means "
        "over seeds.",
        "A rise is the last loss less that at the step where the other seeds' mean is lowest, so that noise alone "
        "gives none.",
        f"Differences are within a seed; intervals are Student's over seeds at {s.level:.0%}. The switch at "
        f"{s.switch:.1%} and the step of {s.early_step} at which speed is read were set on two seeds that are not in "
        "the study.",
        "Every gradient norm is a row of the table diagnostics, every loss one of curves. Made again from the store "
        "alone by python -m experiments.report.",
    ]
