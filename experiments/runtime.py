"""What every verb does first: read the configuration, set up JAX for this machine."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import itertools
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import config_path

from experiments.workdir import read_experiment
from scaling import fields
from scaling.config import Run, run_from
from scaling.fields import ConfigError
from scaling.laws.law import TableError
from scaling.seal import write_json
from scaling.store import Part, Store, StoreError
from scaling.sweeps.dispatch import TasksFailedError
from scaling.sweeps.introduction import LostProcessError
from scaling.sweeps.lock import LockedError
from scaling.sweeps.machine import keep_compiled
from scaling.sweeps.preemption import EXIT_CODE
from scaling.sweeps.sweep import Stage, Sweep
from scaling.sweeps.work import ChangedCorpusError
from scaling.sweeps.workbench import cache_folder
from scaling.training.loop import Preempted
from scaling.training.trainer import OutOfMemoryError

FollowUp = Callable[[Store], Sequence[Stage]]  # stages that are decided by what the runs before gave
CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, such as configs/quickstart.py.")


# What a user can see to.
USER_ERRORS = (ConfigError, LockedError, ChangedCorpusError, TableError, StoreError, TasksFailedError, OutOfMemoryError)
# Of ml_collections, for a key that the configuration lacks or a value that it cannot hold.
# RecursionError: of absl, looking for what a very long name may have meant.
OVERRIDE_ERRORS = (flags.Error, AttributeError, KeyError, RecursionError, TypeError, ValueError)


def define_workdir(required: bool = True) -> None:
    """Define --workdir, for the verb that is being run."""
    flags.DEFINE_string("workdir", None, "Folder of the sweep: its store, checkpoints, fits and report.",
                        required=required)


def start(main: Callable[[], None]) -> None:
    """Run a verb; what the user can cure ends it with one line instead of a trace, and code 1; what only wants another
    start with code EXIT_CODE.
    """

    def guarded(_: list[str]) -> None:
        absl_logging.set_verbosity(absl_logging.WARNING)
        logging.getLogger("scaling").setLevel(logging.INFO)
        logging.getLogger("scaling").addHandler(logging.StreamHandler(sys.stderr))
        logging.getLogger("scaling").propagate = False
        set_up_jax()
        try:
            main()
        except USER_ERRORS as error:
            sys.exit(f"{type(error).__name__}: {error}")
        except (Preempted, LostProcessError) as error:
            cure = "; start the same command again to go on" if isinstance(error, Preempted) else ""
            print(f"{type(error).__name__}: {error}{cure}", file=sys.stderr, flush=True)
            sys.exit(EXIT_CODE)

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(arguments: list[str]) -> list[str]:
    try:
        _check_config_file(arguments)
        program, *stray = app.parse_flags_with_usage(arguments)
        _check_stray(stray)
        return [program]
    except ConfigError as error:
        sys.exit(f"ConfigError: {error}")
    except OSError as error:
        sys.exit(f"ConfigError: --config: expected a file that can be read ({error.strerror or error}); correct it")
    except OVERRIDE_ERRORS as error:
        sys.exit(f"ConfigError: an override that the configuration cannot take: {_override_error(error, arguments)}; "
                 "see the file for its keys and types")


def _check_config_file(arguments: Sequence[str]) -> None:
    """ConfigError where no file is at --config, of which ml_collections tells only when the values are asked for."""
    for argument, after in itertools.pairwise([*arguments[1:], ""]):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            given = value if equals else after
            fields.check(Path(given.split(":", 1)[0]).is_file(), "--config", given, "a configuration file",
                         "name one, such as --config=configs/quickstart.py")


def _check_stray(stray: Sequence[str]) -> None:
    """ConfigError for an argument that belongs to no flag, which would otherwise change nothing in silence."""
    if stray:
        raise ConfigError(f"{fields.shown(stray[0])}: expected flags alone; write --name=value with its dashes and '=',"
                          " or --noname to switch off, and quote what holds spaces")


def _override_error(error: Exception, arguments: Sequence[str]) -> str:
    """The error in words; where a section lacks a key, which ml_collections names alone, with the override, and how
    the section is given whole.
    """
    lacking = re.fullmatch(r"[\"']+(\w+)[\"']+", str(error))
    for argument in arguments:
        name, _, value = argument.partition("=")
        section, _, key = name.rpartition(".")
        if lacking and key == lacking[1] and section.startswith("--config."):
            return (f"{argument}: {section.removeprefix('--')} has no key {key!r}; correct it, or give a section that "
                    f"may have other keys as a whole, {section}=\"{{{key!r}: {value or '...'}}}\"")
    return str(error)


def set_up_jax() -> None:
    """One host device a core where there is no accelerator, or $JAX_NUM_CPU_DEVICES of them; compiled programs kept
    between processes.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    keep_compiled(cache_folder())


def set_precision(runs: Sequence[Run]) -> None:
    """Let JAX compute in 64 bits where a run is of float64; those of 32 bits come out the same beside it."""
    if any(run.training.dtype == "float64" for run in runs):
        jax.config.update("jax_enable_x64", True)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A configuration as given: the sweep it describes, the settings of its study (None: train only), and those of the
    cluster that trains it (None: this machine), which are no part of any run.
    """

    sweep: Sweep
    study: dict[str, Any] | None
    cluster: dict[str, Any] | None = None
    follow_ups: tuple[FollowUp, ...] = ()
    command: str = ""  # that trains it, without where to

    def rounds(self, store: Store) -> Iterator[tuple[Sweep, bool]]:
        """The sweep, then once more with each follow-up's stages, decided when it is asked for by the runs before it
        alone; whether it is the last.
        """
        sweep = self.sweep
        for index, follow_up in enumerate((None, *self.follow_ups)):
            if follow_up is not None:
                seen = Part(store, {run.run_id for run in sweep.runs()})
                sweep = dataclasses.replace(sweep, stages=(*sweep.stages, *follow_up(seen)))
            set_precision(sweep.runs())
            yield sweep, index == len(self.follow_ups)

    def save(self, workdir: Path, whole: Sweep) -> None:
        """Leave the configuration and the runs of its last round beside the store, for analyse, report and keep."""
        record = {"base": self.sweep.base.dump(), "study": self.study, "command": self.command,
                  "runs": [run.run_id for run in whole.runs()]}
        write_json(workdir / "experiment.json", record)


def load_experiment() -> Experiment:
    """The experiment of --config and its overrides. Raises ConfigError for what cannot be trained."""
    if CONFIG.value is None:
        raise ConfigError("--config: expected a configuration file, such as --config=configs/quickstart.py")
    config: ConfigDict = CONFIG.value
    values = dict(config.items())
    study, cluster = (values.pop(name, None) for name in ("study", "cluster"))
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    pinned = {key: value for key, value in overrides.items() if not key.startswith(("study.", "cluster."))}
    base = run_from(values)
    path, *setting = config_flags.get_config_filename(flags.FLAGS["config"]).split(":", 1)  # configs/cmr.py:full
    module = _module(Path(path))
    _check_study(overrides, lambda: module.get_config(*setting))
    stages = module.get_stages(config) if hasattr(module, "get_stages") else (Stage("runs", [{}]),)
    follow_ups = tuple(functools.partial(follow_up, config) for follow_up in getattr(module, "FOLLOW_UPS", ()))
    study, cluster = (None if section is None else section.to_dict() for section in (study, cluster))
    return Experiment(Sweep(base, tuple(stages), pinned), study, cluster, follow_ups,
                      _command(Path(path), setting, overrides))


def _check_study(overrides: Mapping[str, Any], own: Callable[[], ConfigDict]) -> None:
    """ConfigError for a sequence of the study with items of another kind than the file's own configuration has: its
    stages are built of them before any study has checked its settings.
    """
    for key, value in overrides.items():
        if not key.startswith("study.") or not isinstance(value, tuple):
            continue
        usual = config_path.get_value(key, own())
        kinds = {_kind(item) for item in usual}
        fields.check(not kinds or {_kind(item) for item in value} <= kinds, key, value,
                     f"items of the kind of {fields.shown(usual)}", f"write --config.{key}=\"{usual}\", or the like")


def _kind(value: Any) -> type:
    """What an item counts as: int and float are both numbers, lists and tuples both sequences."""
    alike = {int: float, list: tuple}
    return alike.get(type(value), type(value))


def _command(path: Path, setting: Sequence[str], overrides: Mapping[str, Any]) -> str:
    """The command that was given; of a file elsewhere only its name."""
    shown = ":".join([path.name if path.is_absolute() else str(path), *setting])
    changes = [f"--config.{key}={value!r}" for key, value in overrides.items()]
    return shlex.join(["python", "-m", "experiments.run", f"--config={shown}", *changes])


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_study(workdir: Path) -> dict[str, Any]:
    """Settings of the study whose sweep lies in a workdir."""
    record = read_experiment(workdir)
    try:
        study = record["study"]
    except (KeyError, TypeError, IndexError) as error:
        raise ConfigError(f"{workdir / 'experiment.json'}: expected base and study; run python -m experiments.run again"
                          ) from error
    if study is None:
        raise ConfigError(f"--workdir={workdir}: its configuration names no study, so there is nothing to analyse; "
                          "add config.study")
    return study


def study_modules(study: dict[str, Any]) -> tuple[ModuleType, ModuleType]:
    """The modules of the study that the settings name: experiments/NAME.py and its report, experiments/NAME_page.py."""
    known = sorted(path.stem.removesuffix("_page") for path in Path(__file__).parent.glob("*_page.py"))
    fields.check(isinstance(study, dict), "study", study, "a mapping of settings", "write a dict")
    fields.check_key(study.get("name", ""), known, "study.name")
    name = f"experiments.{study['name']}"
    return importlib.import_module(name), importlib.import_module(f"{name}_page")
