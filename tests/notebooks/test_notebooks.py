"""Every notebook runs, shows its figures, says what it decides, and is in step with its pair."""

import ast
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from experiments.reference import SETTING, AbsentDataError, reference_data

FOLDER = Path(__file__).parents[2] / "notebooks"
SAID = {
    "fit_your_own_table": [
        "best use of 1e+22 FLOPs",
        "held out: rmse",
        "new run",
        "after",
        "column 'tokens', row 3: nan",
    ],
    "mixture_laws": ["web: 0.3", "weighted loss: 2.1", "critical share: 0.37"],
    "learning_rate_laws": [
        "best rate 0.0012",
        "diverged: 1 runs",
        "60 runs: schedule.peak 0.0117",
        "held out: rmse 0.00",
        "gain over cosine",
        "refused, no_",
    ],
    "published_laws": [],
}
SAID_OF_PUBLISHED = {
    "mixture_laws": ["Pile share at which its loss is unchanged: 0.28"],
    "published_laws": [
        "Huber(0.001) on log target = 0.00101827",
        "best use of 5.76e+23 FLOPs",
        "Q_D is not bounded above",
    ],
}


def executed(name: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> tuple[str, int]:
    """What a notebook prints, and how many figures it shows; compiled programs are kept with pytest's own cache."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES", "none")
    notebook = jupytext.read(FOLDER / f"{name}.py")
    NotebookClient(
        notebook, timeout=280, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    return printed, sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("fit_your_own_table", 4),
        ("mixture_laws", 2),
        ("learning_rate_laws", 2),
        ("published_laws", 3),
    ],
)
def test_a_notebook_runs_and_decides(
    name: str, figures: int, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    expected = list(SAID[name])
    try:
        monkeypatch.setenv(SETTING, str(reference_data()))
        expected += SAID_OF_PUBLISHED.get(name, [])
    except AbsentDataError as error:
        if name == "published_laws":
            pytest.skip(str(error))
    printed, shown = executed(name, monkeypatch, pytestconfig.cache.mkdir("compiled"))
    assert shown == figures
    assert [text for text in expected if text not in printed] == [], printed


def test_without_published_tables_a_notebook_says_what_it_skips(
    monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    monkeypatch.setenv(SETTING, str(tmp_path / "nowhere"))
    printed, shown = executed("published_laws", monkeypatch, pytestconfig.cache.mkdir("compiled"))
    assert shown == 0
    for table in ("chinchilla_epoch.csv", "datablations_c4.csv", "bnsl_addition.csv"):
        assert f"skipped: the published table {table} is not at {tmp_path / 'nowhere'}; set {SETTING}" in printed


def test_there_are_no_other_notebooks() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(SAID)
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_the_pair_is_in_step_and_without_outputs(name: str) -> None:
    script, notebook = jupytext.read(FOLDER / f"{name}.py"), nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [[(cell["cell_type"], cell["source"]) for cell in pair.cells] for pair in (script, notebook)]
    assert cells[0] == cells[1], f"run: jupytext --update --to ipynb notebooks/{name}.py"
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None
        for cell in notebook.cells
        if cell["cell_type"] == "code"
    )


@pytest.mark.parametrize("name", SAID)
def test_a_notebook_needs_tables_laws_fitting_and_figures_only(name: str) -> None:
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    rooms = {tuple(module.split(".")[:2]) for module in imported if module != "scaling"}
    assert rooms <= {
        ("scaling", "laws"),
        ("scaling", "fitting"),
        ("scaling", "figures"),
        ("scaling", "tidy"),  # two tables to one, without training
        ("numpy",),
        ("pandas",),
        ("os",),
        ("pathlib",),
    }
