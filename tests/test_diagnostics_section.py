"""A run's section `diagnostics`: what it refuses, and that it leaves runs without it alone."""

import dataclasses
from typing import Any

import pytest

from helpers import small_run
from scaling.fields import ConfigError

DIAGNOSTICS = {"layers": True, "activations": True, "spectra": 2}


@pytest.mark.parametrize(("changes", "message"), [
    ({"spectra": -1}, r"diagnostics\.spectra = -1: expected from 0 to 1000; use 0 for none"),
    ({"spectra": 1001}, r"diagnostics\.spectra = 1001: expected from 0 to 1000"),
    ({"spectra": True}, r"diagnostics\.spectra = True: expected int, not bool"),
    ({"layers": 1}, r"diagnostics\.layers = 1: expected bool, not int"),
    ({"activations": None}, r"diagnostics\.activations = None: expected bool, not NoneType"),
    ({"layer": True}, r"diagnostics: unknown key 'layer'; did you mean 'layers'\?"),
    ({"layers": False, "activations": False, "spectra": 0}, r"diagnostics = \{'layers': False, 'activations': False, "
     r"'spectra': 0\}: expected something to look at; switch one on, or use None"),
])
def test_an_impossible_value_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_run(diagnostics={**DIAGNOSTICS, **changes})


def test_every_value_is_a_program_of_its_own_and_none_is_as_if_the_section_were_not_there() -> None:
    plain = small_run()
    assert small_run(diagnostics=None) == plain
    others = [{}, {"layers": False}, {"activations": False}, {"spectra": 0}]
    runs = [plain, *(small_run(diagnostics={**DIAGNOSTICS, **other}) for other in others)]
    assert len({run.program for run in runs}) == len({run.run_id for run in runs}) == 5
    for run in runs[1:]:
        assert dataclasses.replace(run, diagnostics=None).run_id == plain.run_id
