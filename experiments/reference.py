"""Where published measurements lie: the one setting that finds them."""

import os
from pathlib import Path

SETTING = "SCALING_REFERENCE_DATA"


class AbsentDataError(FileNotFoundError):
    """The published tables are not where the setting points; the message says what to set."""


def reference_data() -> Path:
    """Folder of the published tables: $SCALING_REFERENCE_DATA, else shared/reference/data beside the repository.

    Raises AbsentDataError where there is none.
    """
    default = Path(__file__).resolve().parents[2] / "shared" / "reference" / "data"
    folder = Path(os.environ.get(SETTING, default))
    if not folder.is_dir():
        raise AbsentDataError(f"{SETTING}: no folder of published tables at {folder}; set it to where they lie")
    return folder
