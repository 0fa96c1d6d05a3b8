"""A profile of a sweep's training: what the devices and the host did during a few calls, for XProf and Perfetto."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from scaling.files import disk_errors

CALLS = 4  # of the devices, after the first, which has compiled


@contextlib.contextmanager
def profiled(folder: Path | None, interrupted: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """Record a trace of training into `folder` (None: record nothing). Yields `interrupted`, which training asks after
    every call of the devices; the trace is of the CALLS calls after the first, or of as many as there are.
    """
    asked, tracing = 0, False

    def count_calls() -> bool:
        nonlocal asked, tracing
        asked += 1
        if asked == 1 and folder is not None:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # else the host's Python frames outnumber all else
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(folder, create_perfetto_trace=True, profiler_options=options)
            tracing = True
        if asked == 1 + CALLS and tracing:
            jax.profiler.stop_trace()
            tracing = False
        return interrupted()

    try:
        yield count_calls
    finally:
        if tracing:
            jax.profiler.stop_trace()
    if folder is not None:
        print(_described(folder, asked), file=sys.stderr, flush=True)


def _described(folder: Path, asked: int) -> str:
    if not asked:
        return f"--profile={folder}: nothing was trained, so nothing was recorded; use another --workdir"
    newest = max(folder.glob("plugins/profile/*"))
    names = sorted(path.name for path in newest.iterdir())
    return (f"profile of {min(asked - 1, CALLS)} calls: {newest} ({', '.join(names)}); xprof --logdir={folder}, or "
            "open perfetto_trace.json.gz at https://ui.perfetto.dev")
