"""The settings of a study as a workdir keeps them."""

from pathlib import Path

import pytest

from configs.quickstart import get_config
from experiments.runtime import Experiment, load_study
from helpers import small_run
from scaling.files import CorruptFileError
from scaling.sweeps.sweep import Sweep


def test_damaged_settings_of_a_study_are_refused(tmp_path: Path) -> None:
    settings = get_config().study.to_dict()
    sweep = Sweep(small_run(), ())
    Experiment(sweep, settings).save(tmp_path, sweep)
    assert load_study(tmp_path)["tolerance"] == settings["tolerance"]
    path = tmp_path / "experiment.json"
    path.write_text(path.read_text().replace('"tolerance": 0', '"tolerance": 1'))
    with pytest.raises(CorruptFileError, match=rf"{path}: damaged, or edited by hand.*run the sweep again"):
        load_study(tmp_path)
