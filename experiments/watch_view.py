"""How a sweep's status looks in a terminal: counts, runners, last losses, curves, failures."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from scaling.sweeps.heartbeat import Heartbeat
from scaling.sweeps.progress import clock_text
from scaling.sweeps.status import UNFINISHED, Status

COLORS = {"done": "green", "running": "cyan", "diverged": "yellow", "failed": "red", "stopped": "magenta",
          "working": "cyan", "silent": "yellow", "ended": "green"}
BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
SPARK_WIDTH, BAR_WIDTH = 28, 60
MOST_ROWS = 8  # of a table: the rest is counted


class Sparkline:
    """A curve of loss against tokens, tokens on a log scale from the first update; high blocks are high losses."""

    def __init__(self, tokens: pd.Series, loss: pd.Series) -> None:
        self.levels = _levels(tokens.to_numpy(float), loss.to_numpy(float))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(len(self.levels), len(self.levels))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        blocks = ASCII_BLOCKS if options.ascii_only else BLOCKS
        yield Text("".join(blocks[level] for level in self.levels), no_wrap=True)


def _levels(tokens: np.ndarray, loss: np.ndarray) -> list[int]:
    """Height of each of SPARK_WIDTH places, 0 to 7; one place a point where there are fewer than two."""
    shown = (tokens > 0) & np.isfinite(loss)
    tokens, loss = tokens[shown], loss[shown]
    if len(loss) < 2:
        return [0] * len(loss)
    at = np.geomspace(tokens[0], tokens[-1], SPARK_WIDTH)
    height = np.interp(np.log(at), np.log(tokens), loss)
    span = height.max() - height.min()
    return [round(7 * share) for share in ((height - height.min()) / span if span > 0 else height * 0)]


def view(status: Status) -> Group:
    """The whole view."""
    parts = [_runners(status), _losses(status), _curves(status), _failures(status)]
    return Group(_heading(status), _bar(status), *(line for part in parts if part is not None for line in ("", part)))


def _styled(word: str) -> Text:
    return Text(word, style=COLORS.get(word, ""))


def _heading(status: Status) -> Text:
    text = Text.assemble((str(status.workdir), "bold"), f"  {len(status.runs)} runs: ")
    counts = [Text.assemble(f"{count} ", _styled(name)) for name, count in status.counts.items()]
    text.append_text(Text(", ").join(counts))
    text.append(f"; {status.left} left")
    text.append(time.strftime("  %Y-%m-%d %H:%M:%S", time.localtime(status.at)), style="dim")
    if status.left and not status.working:
        text.append("\nno runner at work: start the same command again to go on", style="yellow")
    return text


def _bar(status: Status) -> Text:
    """A share of BAR_WIDTH for each status, in its colour; runs without an outcome are thin."""
    runs, places, counted = len(status.runs), 0, 0
    bar = Text()
    for name, count in status.counts.items():
        counted += count
        width = round(BAR_WIDTH * counted / runs) - places
        places += width
        bar.append(("╌" if name in UNFINISHED else "━") * width, style=COLORS.get(name, ""))
    return bar


def _table(title: str, *columns: str) -> Table:
    """Words on the left, numbers on the right: a column whose name ends in `>` is one of numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name.removesuffix(">"), justify="right" if name.endswith(">") else "left", no_wrap=True,
                         header_style="dim")
    return table


def _more(table: Table, hidden: int, what: str) -> Table:
    if hidden > 0:
        table.caption, table.caption_justify = f"and {hidden} more {what}", "left"
    return table


def duration(seconds: float) -> str:
    """Seconds as a clock, `?` where they are not known."""
    return "?" if math.isnan(seconds) else clock_text(seconds)


def _runners(status: Status) -> Table | Text:
    """Those at work; where none is, the last that trained."""
    if not status.runners:
        return Text("no runner left a progress file here", style="dim")
    last = max(status.runners, key=lambda runner: (runner.tokens > 0, runner.seen))
    shown: Sequence[Heartbeat] = status.working or (last,)
    table = _table("Runners", "runner", "state", "runs>", "tokens/s>", "FLOP/s>", "runs/hour>", "left>", "last seen>")
    for runner in shown[:MOST_ROWS]:
        state = runner.state(status.at)
        left, speeds = duration(runner.seconds_left), (runner.tokens_per_second, runner.flops_per_second)
        if state != "working":
            left, speeds = "-", runner.mean_speeds
        table.add_row(f"{runner.host} {runner.process}", _styled(state), f"{runner.done}/{runner.runs}",
                      f"{speeds[0]:,.0f}", f"{speeds[1]:.3g}",
                      f"{runner.runs_per_hour:,.0f}", left, f"{duration(runner.age(status.at))} ago")
    return _more(table, len(status.runners) - min(len(shown), MOST_ROWS), "that worked here or still do")


def _losses(status: Status) -> Table | None:
    losses = status.losses()
    if losses.empty:
        return None
    table = _table("Last held-out loss, nats/token", "domain", "runs>", "lowest>", "median>", "highest>", "lowest in")
    for row in losses.head(MOST_ROWS).to_dict("records"):
        levels = [f"{row[name]:.4f}" for name in ("lowest", "median", "highest")]
        best = row["best_run"]
        table.add_row(row["domain"], str(row["runs"]), *levels, f"{best}  {described(status, best)}")
    return _more(table, len(losses) - MOST_ROWS, "domains")


def described(status: Status, run_id: str, most: int = 3) -> str:
    """What sets a run apart: the values of the fields that vary most in the sweep."""
    row = status.runs[status.runs.run_id == run_id].iloc[0]
    values = [(name.split(".", 1)[1], row[name]) for name in status.varied[:most]]
    return " ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in values)


def _curves(status: Status) -> Table | None:
    """For each domain, the curve of the run with the lowest loss, and of the run that was measured last."""
    held_out = status.curves[status.curves.split == "validation"]
    if held_out.empty:
        return None
    latest = _latest(status)
    table = _table("Held-out loss against tokens (log)", "domain", "run", "", "first>", "", "last>", "step>")
    best = {row["domain"]: row["best_run"] for row in status.losses().to_dict("records")}
    chosen = [(domain, run, why) for domain in best for run, why in ((best[domain], "lowest"), (latest, "latest"))
              if why == "lowest" or run != best[domain]]
    for domain, run_id, why in chosen[:2 * MOST_ROWS]:
        curve = held_out[(held_out.run_id == run_id) & (held_out.domain == domain) & (held_out.step > 0)]
        curve = curve.dropna(subset="loss").sort_values("step")
        if len(curve):
            table.add_row(domain, run_id, why, f"{curve.loss.iloc[0]:.3f}", Sparkline(curve.tokens, curve.loss),
                          f"{curve.loss.iloc[-1]:.3f}", f"{curve.step.iloc[-1]:,}")
    return table


def _latest(status: Status) -> str:
    """The run measured last: one in training where there is one, else the last row of the store."""
    running = status.runs.run_id[status.runs.status == "running"]
    held_out = status.curves[status.curves.split == "validation"]
    mine = held_out[held_out.run_id.isin(running)]
    return str((mine if len(mine) else held_out).run_id.iloc[-1])


def _failures(status: Status) -> Table | None:
    failures = status.failures()
    if failures.empty:
        return None
    table = _table("Ended early", "run", "status", "at step>", "reason", "configuration")
    for row in failures.tail(MOST_ROWS).to_dict("records"):
        at = "" if pd.isna(row["diverged_at"]) else f"{row['diverged_at']:,.0f}"
        table.add_row(row["run_id"], _styled(row["status"]), at, row["reason"], described(status, row["run_id"]))
    return _more(table, len(failures) - MOST_ROWS, "runs")
