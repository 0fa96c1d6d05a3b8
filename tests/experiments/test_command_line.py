"""What the command line of a verb refuses: each a line that names the argument and the cure, before anything runs."""

import re
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import runtime, watch
from scaling.fields import ConfigError

QUICK = "--config=configs/quickstart.py"
Parse = Callable[..., runtime.Experiment]
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Parse:
    """A verb's start in this process up to its experiment; flags are as before when it returns."""
    monkeypatch.chdir(request.config.rootpath)

    def parsed(*arguments: str) -> runtime.Experiment:
        command = ["verb", *arguments]
        monkeypatch.setattr(sys, "argv", command)  # where ml_collections looks for overrides
        try:
            with flagsaver.flagsaver():
                assert runtime._parse_flags(command) == ["verb"]
                return runtime.load_experiment()
        finally:
            flags.FLAGS.unparse_flags()

    return parsed


@pytest.mark.parametrize(("arguments", "message"), [
    ([QUICK, "config.model.width=32"], "'config.model.width=32': expected flags alone; write --name=value"),
    ([QUICK, "--logtostderr", "False"], "'False': expected flags alone; write --name=value"),
    (["--config=nonexist.py"], "--config = 'nonexist.py': expected a configuration file; name one, such as --config="),
    (["--config", "nonexist.py"], "--config = 'nonexist.py': expected a configuration file"),
    (["--config=nonexist.py", "--config.model.width=3"], "--config = 'nonexist.py': expected a configuration file"),
    (["--config=configs"], "--config = 'configs': expected a configuration file"),
    (["--config="], "--config = '': expected a configuration file"),
    ([f"--config={'x' * 300}.py"], "--config: expected a file that can be read (File name too long)"),
    ([QUICK, "--config.training.duration.tokens=1000"], "--config.training.duration.tokens=1000: config.training.durati"
     "on has no key 'tokens'; correct it, or give a section that may have other keys as a whole, --config.training.dura"
     "tion=\"{'tokens': 1000}\""),
    ([QUICK, "--config.model.widht=8"], 'Did you mean "width" instead of "widht"?'),
])
def test_what_is_no_flag_of_a_verb_ends_it_with_one_line(parse: Parse, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    said = str(ended.value.code)
    assert said.startswith("ConfigError: ")
    assert message in said
    assert "\n" not in said


@pytest.mark.parametrize(("override", "message"), [
    ("widths=('a',)", "study.widths = ('a',): expected items of the kind of (16, 24, 32, 48); write"),
    ("shares=None", "study.shares = (None,): expected items of the kind of (0.0, 0.1, "),
])
def test_items_of_another_kind_are_refused_before_stages_are_built_of_them(
    parse: Parse, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(QUICK, f"--config.study.{override}")


def test_whole_numbers_serve_as_shares(parse: Parse) -> None:
    assert len(parse(QUICK, "--config.study.shares=(0, 1)", "--config.study.widths=(16,)").sweep.runs()) == 6


def test_an_override_of_none_empties_a_field_that_may_be_empty(parse: Parse) -> None:
    base = parse(QUICK, "--config.evaluation.points=None", "--config.evaluation.steps=(3, 4)",
                 "--config.optimizer.clip_norm=None").sweep.base
    assert (base.evaluation.points, base.evaluation.steps, base.optimizer.clip_norm) == (None, (3, 4), None)
    base = parse(QUICK, "--config.evaluation.points=5", "--config.evaluation.steps=None",
                 "--config.optimizer.clip_norm=2").sweep.base
    assert (base.evaluation.points, base.evaluation.steps, base.optimizer.clip_norm) == (5, None, 2.0)


def test_a_section_given_whole_may_have_other_keys(parse: Parse) -> None:
    duration = parse(QUICK, "--config.training.duration={'tokens': 1000}").sweep.base.training.duration
    assert (duration.steps, duration.tokens) == (None, 1000)


def test_a_workdir_whose_name_is_too_long_is_named(tmp_path) -> None:
    with pytest.raises(runtime.StoreError, match="file name too long; use a shorter name"):
        runtime.load_study(tmp_path / ("x" * 300))


@pytest.mark.parametrize("form", ["csv", "tensorboard"])
def test_a_place_for_no_tables_is_named(tmp_path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FLAGS", SimpleNamespace(workdir=str(tmp_path), export=form, out="/proc/x"))
    with pytest.raises(runtime.StoreError, match=r"/proc/x: no folder can be made here; name another one"):
        watch.main()
