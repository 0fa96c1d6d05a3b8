"""Whatever a configuration file or a command line holds: a run, or a refusal that names what is wrong."""

import json
from typing import Any

import pyarrow as pa
import pytest
from absl import flags
from fuzzing import JSON, LEAVES, NASTY_TEXT, NUMBERS, TEXT, attempt, fuzzed, mutated, nested, places, values
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import config_flags

from configs.base import get_config
from experiments import runtime
from helpers import small_config, small_run, windows_of
from scaling.config import Duration, Run, run_from
from scaling.fields import ConfigError
from scaling.sweeps.plan import groups
from scaling.sweeps.sweep import overlay

VALID = small_config()
KEYS = [".".join(path) for path in places(VALID)]
NAMES = st.one_of(st.sampled_from(sorted({name for path in places(VALID) for name in path})), TEXT)
ANY_KEYS = st.one_of(NAMES, st.integers(), st.none(), st.floats(), st.tuples(st.integers()))


def check_run(make: Any, *errors: type[Exception]) -> None:
    """`make()` gives a run that can be named, written and read again, or refuses."""
    run = attempt(make, ConfigError, *errors)
    if run is None:
        return
    assert run_from(json.loads(json.dumps(run.dump()))) == run
    assert len(run.run_id) == 12
    pa.Table.from_pylist([run.flat()])  # as the store will


@fuzzed
@given(values(ANY_KEYS))
def test_anything_for_a_configuration(value: Any) -> None:
    check_run(lambda: run_from(value))


@fuzzed
@given(mutated(VALID, values(ANY_KEYS)))
def test_a_configuration_with_parts_replaced(value: Any) -> None:
    check_run(lambda: run_from(value))


@fuzzed
@given(st.sampled_from([(section, name) for section, rest in VALID.items() if rest for name in rest]),
       st.one_of(LEAVES, st.fixed_dictionaries({}, optional={unit: NUMBERS for unit in ("steps", "tokens", "epochs")})))
def test_a_configuration_with_one_value_replaced_is_planned_or_refused(place: tuple[str, str], value: Any) -> None:
    section, name = place
    changed = {**VALID, section: {**VALID[section], name: value}}

    def planned() -> Run:
        run = run_from(changed)
        if not 10**6 < (run.training.duration.steps or 0) < 2**31:  # possible, but large
            groups([run], {run.program: windows_of(run)})
        return run

    check_run(planned)


@fuzzed
@given(st.dictionaries(st.one_of(st.sampled_from(KEYS), st.builds("{}.{}".format, NAMES, NAMES), TEXT), JSON,
                       max_size=4))
def test_dotted_overrides_of_a_run(changes: dict[str, Any]) -> None:
    check_run(lambda: overlay(small_run(), changes))


@fuzzed
@given(st.one_of(st.sampled_from(KEYS), st.builds("{}.{}".format, NAMES, NAMES)),
       st.one_of(TEXT, LEAVES.filter(lambda leaf: not isinstance(leaf, int) or abs(leaf) < 10**400).map(repr),
                 st.sampled_from(["{'steps': 5}", "(1,", "[" * 200, "{'steps': __import__('os')}", "()", "1" * 5000])))
def test_overrides_on_the_command_line(key: str, text: str) -> None:
    found = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", get_config(), flag_values=found)

    def parsed() -> Run:
        found(["verb", f"--config.{key}={text}"])
        return run_from(dict(found["config"].value.items()))

    check_run(parsed, *runtime.OVERRIDE_ERRORS)  # which end a verb with one line


@pytest.mark.parametrize(("value", "message"), [
    ({**VALID, 3: {}}, r"config: unknown key 3; use one of model"),
    ({**VALID, "model": nested(3000, mapping=True)}, r"model: unknown key 'a'"),
    (nested(20_000, mapping=False), r"config = <list .*>: expected a mapping"),
    ({**VALID, "data": "x" * 10**6}, r"data = 'xxx.*\.\.\. .*: expected a mapping"),
])
def test_what_was_found_by_fuzzing_is_refused_by_name(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_from(value)


@pytest.mark.parametrize(("change", "message"), [
    ({"model.width": 10**12}, r"model\.width = 10{12}: expected at most 2147483647"),
    ({"model.heads": 4, "model.width": 2**31 - 2}, r"model\.heads = 4: .*use one of \[1, 2, 3, 6"),
    ({"model.feedforward_ratio": 10**400}, r"model\.feedforward_ratio = 10{20}.*: expected "),
    ({"training.seed": 10**5000}, r"training\.seed = <int .*>: expected an int of 64 bits"),
    ({"data.domains": {"\ud800": "wheels:prose"}}, r"data\.domains = '\\ud800': expected text"),
    ({"evaluation.points": None, "evaluation.steps": [2**63]}, r"evaluation\.steps = 9223372036854775808: expected"),
    ({"training.duration": {"steps": 2**31}}, r"training\.duration.* = .*: expected at most 2147483647 steps"),
    ({"training.duration": {"epochs": 1e308}, "data.mixture": {"prose": 1.0}},
     r"duration = .*: expected a finite number of steps"),
    ({"data.mixture": [(0.0, {"prose": 1.0}), ("x",)]}, r"data\.mixture = .*: expected shares by domain, or phases"),
])
def test_values_found_by_fuzzing_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    """Where the configuration is read, or where it is planned."""
    def planned() -> None:
        run = run_from(small_config(**change))
        groups([run], {run.program: windows_of(run)})

    with pytest.raises(ConfigError, match=message):
        planned()


def test_no_override_runs_code(tmp_path: Any) -> None:
    """Text that would be code elsewhere stays text, or is refused."""
    marker = tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    for key in ("data.tokenizer", "data.mixture", "training.duration", "model.width", "evaluation.steps"):
        found = flags.FlagValues()
        config_flags.DEFINE_config_dict("config", get_config(), flag_values=found)
        try:
            found(["verb", f"--config.{key}={code}"])
            run_from(dict(found["config"].value.items()))
        except (ConfigError, *runtime.OVERRIDE_ERRORS):
            pass
    for text in (*NASTY_TEXT, code):
        with pytest.raises(ConfigError):
            run_from(small_config(**{"optimizer.name": text}))
    assert not marker.exists()
    assert Duration(steps=1)
