"""Watch a sweep, live or finished, on this machine or on another that shares the folder; nothing is written to it.

python -m experiments.watch --workdir=results/quickstart            # until every run has ended; Ctrl-C leaves
python -m experiments.watch --workdir=results/quickstart --once     # one view; so too where stdout is no terminal
python -m experiments.watch --workdir=results/quickstart --export=csv --out=tables/
python -m experiments.watch --workdir=results/quickstart --export=tensorboard --out=boards/   # needs .[tensorboard]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from absl import flags
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from experiments import export, runtime
from experiments.watch_view import view
from scaling.fields import ConfigError
from scaling.files import disk_errors, make_folder
from scaling.store import StoreError
from scaling.sweeps.status import read_status

FLAGS = flags.FLAGS
SECONDS = 2.0  # between two views, or
SHARE = 5.0  # times as long as it takes to read the store


def watch(workdir: Path, console: Console, sleep: Callable[[float], None] = time.sleep) -> None:
    """Show a sweep until every run has ended. What cannot be read meanwhile is shown and read again."""
    view_of: RenderableType = view(read_status(workdir))
    with Live(view_of, console=console, auto_refresh=False, vertical_overflow="visible") as live:
        left = True
        while left:
            begin = time.monotonic()
            try:
                status = read_status(workdir)
                view_of, left = view(status), status.left > 0
            except StoreError as error:
                view_of = Text(f"{type(error).__name__}: {error}", style="red")
            live.update(view_of, refresh=True)
            if left:
                sleep(max(SECONDS, SHARE * (time.monotonic() - begin)))


def main() -> None:
    workdir = Path(FLAGS.workdir)
    if (FLAGS.export is None) != (FLAGS.out is None):
        raise ConfigError("--export and --out: expected both or none; name the form (csv, tensorboard) and the folder")
    if FLAGS.export is not None:
        out = Path(FLAGS.out)
        with disk_errors(out):
            make_folder(out)
        print(export.EXPORTS[FLAGS.export](read_status(workdir), out))
        return
    console = Console()
    if FLAGS.once or not console.is_terminal:
        console.print(view(read_status(workdir)))
        return
    try:
        watch(workdir, console)
    except KeyboardInterrupt:
        console.print("the sweep goes on without a watcher", style="dim")


if __name__ == "__main__":
    runtime.define_workdir()
    flags.DEFINE_bool("once", False, "Print one view and end.")
    flags.DEFINE_enum("export", None, list(export.EXPORTS), "Write the tables in this form to --out instead.")
    flags.DEFINE_string("out", None, "Folder for --export.")
    flags.adopt_module_key_flags(runtime)
    runtime.start(main)
