"""Builders shared by the tests: small runs, windows without a corpus, folders of text that stand in for one."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.base import get_config
from scaling.config import Run, run_from
from scaling.training.tables import Windows

SMALL: Mapping[str, Any] = {
    "model.width": 16, "model.depth": 1, "model.heads": 2, "data.sequence": 16, "data.batch": 4,
    "schedule.warmup": {"steps": 2}, "training.duration": {"steps": 20}, "evaluation.points": 3,
    "evaluation.windows": 4,
}


def small_config(**changes: Any) -> dict[str, Any]:
    """configs/base.py as a plain dict, made small, with the values at dotted keys set: small_config(**{"a.b": 1})."""
    values = get_config().to_dict()
    for key, value in {**SMALL, **changes}.items():
        *sections, last = key.split(".")
        section = values
        for name in sections:
            section = section[name]
        section[last] = value
    return values


def small_run(**changes: Any) -> Run:
    """The run of `small_config`."""
    return run_from(small_config(**changes))


def never() -> bool:
    """No stop is asked for."""
    return False


def windows_of(run: Run, count: int = 1000) -> Windows:
    """As if every domain of a run held `count` training windows."""
    return Windows(tuple((name, count) for name in run.data.names))


def write_text(folder: Path, seed: int = 0, documents: int = 200) -> str:
    """Write a folder of random sentences, about 80 bytes a document; returns its source, `folder:PATH`."""
    letters = random.Random(seed)
    words = ["".join(letters.choices("abcdefgh", k=letters.randint(2, 7))) for _ in range(50)]
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(documents):
        (folder / f"{index:04d}.txt").write_text(" ".join(letters.choices(words, k=15)) + "\n")
    return f"folder:{folder}"
