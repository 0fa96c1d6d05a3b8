"""`python -m experiments.fit` as a user runs it: a fit, a fit a column, a ranking, the catalogue, one-line errors."""

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from absl import flags

from experiments import fit as verb
from experiments.fit_request import RequestError, matching, read_objective
from scaling.files import StoreError
from scaling.fitting import Fit, huber, least_squares
from scaling.laws.catalogue import FAMILIES, LAWS
from scaling.laws.law import TableError
from scaling.seal import write_json
from scaling.store import Store

TRAINING = (
    "flax",
    "optax",
    "orbax",
    "tensorflow_datasets",
    "ml_collections",
    "scaling.training",
    "scaling.sweeps",
    "scaling.models",
    "scaling.data",
    "scaling.optimizers",
)
TRUTH = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}


def simulated() -> pd.DataFrame:
    """Nine sizes by five token counts, losses on two domains; names as a user has them."""
    n_M, d_M = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 4e9, 9), np.geomspace(5e8, 1e11, 5), indexing="ij"))
    clean_M = TRUTH["E"] + TRUTH["A"] / n_M ** TRUTH["alpha"] + TRUTH["B"] / d_M ** TRUTH["beta"]
    rng = np.random.default_rng(0)
    noisy = [clean_M * scale * np.exp(rng.normal(0, 0.003, n_M.size)) for scale in (1.0, 1.2)]
    return pd.DataFrame(
        {
            "params": n_M,
            "tokens": d_M,
            "loss_prose": noisy[0],
            "loss_code": noisy[1],
            "family": np.where(np.arange(n_M.size) % 2, "a", "b"),
        }
    )


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "runs.csv"
    simulated().to_csv(path, index=False)
    return path


def run(*arguments: str) -> str:
    """The verb in this process, with flags of its own."""
    values = flags.FlagValues()
    verb.define(values)
    values(["fit", *arguments])
    return verb.run(values)


COMMAND = ("--law=chinchilla", "--map", "N=params,D=tokens,loss=loss_prose", "--holdout", "N > 1e9", "--bootstrap=200")


@pytest.fixture(scope="module")
def done(csv: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The issue's command in a process of its own, which ends by naming what it imported of the training side."""
    out = tmp_path_factory.mktemp("fit")
    program = (
        "import sys; from absl import flags; from experiments import fit; fit.define(flags.FLAGS);"
        "flags.FLAGS(sys.argv); print(fit.run(flags.FLAGS));"
        f"print('imported:', [name for name in {TRAINING!r} if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, f"--table={csv}", *COMMAND, f"--out={out}", "--target", "N=7e9,D=1.4e11"]
    ended = subprocess.run(command, text=True, capture_output=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr
    return out, ended.stdout


def test_a_fit_prints_its_summary_and_leaves_json_and_figures(done: tuple[Path, str]) -> None:
    out, said = done
    fit = Fit.from_json((out / "fit.json").read_text())
    assert fit.summary() in said
    assert "held out: rmse" in said
    assert "runs: each row is one (no --group)" in said
    assert fit.points.held_M.sum() == 10
    assert len(fit.draws_BxP) == 200
    figures = {path.name for path in out.glob("*.png")}
    assert figures == {"along_N.png", "along_D.png", "residuals.png", "predicted.png", "contour.png"}
    assert (out / "summary.txt").read_text().strip() in said


def test_a_target_is_predicted_with_both_intervals_and_its_distance(done: tuple[Path, str]) -> None:
    out, said = done
    (row,) = pd.read_csv(out / "predictions.csv").to_dict("records")
    fit = Fit.from_json((out / "fit.json").read_text())
    assert row["predicted"] == pytest.approx(float(fit.predict({"N": 7e9, "D": 1.4e11})))
    truth = 1.8 + 480 / 7e9**0.35 + 2100 / 1.4e11**0.37
    assert row["low"] < truth < row["high"]
    assert row["new_low"] < row["low"] < row["high"] < row["new_high"]
    assert f"at N = 7e+09, D = 1.4e+11: {row['predicted']:.5g}, 95% of the mean curve [{row['low']:.5g}" in said
    assert "of a new run [" in said
    assert re.search(r"extrapolated: N is a factor 7\.\d+ from the fitted \[1e\+07", said)


def test_no_training_code_is_imported(done: tuple[Path, str]) -> None:
    assert done[1].strip().endswith("imported: []")


def test_the_command_line_ends_with_one_line_and_code_2(csv: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "experiments.fit",
        f"--table={csv}",
        "--law=chinchilla",
        "--map",
        "N=params,D=tokens",
    ]
    ended = subprocess.run(command, text=True, capture_output=True, timeout=100, check=False)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert (
        "column 'loss' is missing: it is the target (nats/token) of law 'chinchilla'; name it with --map loss=COLUMN"
        in (ended.stderr)
    )


def test_a_pattern_and_by_give_a_fit_a_column_and_value(csv: Path, tmp_path: Path) -> None:
    said = run(
        f"--table={csv}", "--law=m2", "--map=x=params,loss=loss_*", "--by=family", "--bootstrap=0", f"--out={tmp_path}"
    )
    names = ["loss_prose, a", "loss_prose, b", "loss_code, a", "loss_code, b"]
    table = pd.read_csv(tmp_path / "fits.csv")
    assert table["fit"].tolist() == names
    assert table["n"].tolist() == [22, 23, 22, 23]
    assert all(name in said for name in names)
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == {"loss_prose_a", "loss_prose_b", "loss_code_a", "loss_code_b"}
    one = Fit.from_json((tmp_path / "loss_code_a" / "fit.json").read_text())
    assert table["beta"][2] == pytest.approx(one.parameters["beta"])


def test_all_ranks_the_laws_whose_inputs_are_there(tmp_path: Path) -> None:
    steps = np.geomspace(1e3, 1e5, 12)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.002, 12))
    path = tmp_path / "curve.parquet"
    pd.DataFrame({"step": steps, "loss": (2 + 40 * steps**-0.5) * noise}).to_parquet(path)
    said = run(
        f"--table={path}",
        "--law=all",
        "--map=x=step",
        "--where=step > 1500",
        "--bootstrap=20",
        f"--out={tmp_path}",
        "--target=x=2e5",
    )
    ranking = pd.read_csv(tmp_path / "ranking.csv")
    assert {"m1", "m2", "m3", "m4"} <= set(ranking["law"])
    assert ranking["law"].iloc[-1] == "m1"  # no floor, so it cannot bend
    left_out = pd.read_csv(tmp_path / "left_out.csv").set_index("law")["reason"]
    assert left_out["chinchilla"] == "no column for N, D"
    assert "m2: at x = 200000" in said.replace("  ", " ")
    assert Fit.from_json((tmp_path / "m2.json").read_text()).law.name == "m2"
    assert Fit.from_json((tmp_path / "best" / "fit.json").read_text()).law.name == ranking["law"].iloc[0]


def test_too_few_runs_for_the_noise_of_a_new_one_is_said(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": [1e3, 1e4, 1e5], "run_id": ["a", "b", "c"]})
    table.assign(loss=2 + 40 * table.x**-0.5).to_csv(tmp_path / "runs.csv", index=False)
    said = run(f"--table={tmp_path / 'runs.csv'}", "--law=m2", "--bootstrap=20", "--target=x=2e5")
    assert "no interval of a new run: groups: 3 runs" in said
    assert "runs: equal values of run_id" in said


def test_shares_give_a_mixture_law_its_domains(tmp_path: Path) -> None:
    share_Mx2 = np.random.default_rng(0).dirichlet([1, 1], 16)
    table = pd.DataFrame(share_Mx2, columns=["p_web", "p_code"]).assign(p_sum=1.0)
    path = tmp_path / "mixtures.csv"
    table.assign(loss=2 + np.exp(share_Mx2 @ [0.3, -1.5])).to_csv(path, index=False)
    said = run(
        f"--table={path}",
        "--law=data-mixing",
        "--map=shares=p_*!p_sum",
        "--bootstrap=0",
        "--target",
        "p_web=0.5,p_code=0.5",
    )
    assert re.search(r"t\[p_code\] = -1.5\b", said)
    assert f"at p_web = 0.5, p_code = 0.5: {2 + np.exp(-0.6):.5g}" in said


def test_all_with_shares_ranks_the_mixture_laws_that_the_table_has_inputs_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    share_Mx2 = rng.dirichlet([1, 1], 24)
    loss_M = (2 + np.exp(share_Mx2 @ [0.3, -1.5])) * np.exp(rng.normal(0, 0.002, 24))
    path = tmp_path / "mixtures.csv"
    pd.DataFrame(share_Mx2, columns=["p_web", "p_code"]).assign(loss=loss_M).to_csv(path, index=False)
    run(f"--table={path}", "--law=all", "--map=shares=p_*", "--bootstrap=0", f"--out={tmp_path}")
    assert set(pd.read_csv(tmp_path / "ranking.csv")["law"]) == {"data-mixing", "mixture-term"}
    left_out = pd.read_csv(tmp_path / "left_out.csv").set_index("law")["reason"]
    assert left_out["mixture-additive"] == "no column for N, D"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir of 45 runs with losses after the first and the second half, and one run of an older sweep."""
    table = simulated().assign(run_id=[f"run{i:02}" for i in range(45)], steps=2)
    runs = table.rename(columns={"params": "params_total"})[["run_id", "params_total", "tokens", "steps"]]
    runs = runs.assign(**{"status": "done", "schedule.peak": 1e-3})
    runs = pd.concat([runs, runs.tail(1).assign(run_id="older")], ignore_index=True)
    long = table.melt(["run_id", "tokens"], ["loss_prose", "loss_code"], "domain", "loss")
    long = long.assign(domain=long.domain.str.removeprefix("loss_"), split="validation", step=2)
    older = long.tail(1).assign(run_id="older", loss=100.0)
    half = long.assign(step=1, tokens=long.tokens / 2, loss=long.loss + 1)
    workdir = tmp_path_factory.mktemp("sweep")
    Store(workdir / "store").write("runs", "all", runs)
    Store(workdir / "store").write("curves", "all", pd.concat([half, long, older], ignore_index=True))
    write_json(workdir / "experiment.json", {"base": {}, "study": None, "command": "", "runs": list(table.run_id)})
    return workdir


def test_a_sweep_is_fitted_as_the_table_of_its_ends(sweep: Path, csv: Path) -> None:
    options = ("--law=chinchilla", "--bootstrap=40", "--target=N=7e9,D=1.4e11", "--holdout=N > 1e9")
    whole = run(f"--table={csv}", *options, "--map=N=params,D=tokens,loss=loss_code")
    own = run(f"--workdir={sweep}", "--domain=code", *options, "--map=N=params_total,D=tokens")
    assert own.replace("== loss\n", "== loss_code\n").splitlines()[:-1] == whole.splitlines()[:-1]
    assert "at N = 7e+09" in own
    assert own.endswith("runs: equal values of run_id")


def test_a_sweep_gives_a_fit_a_domain_and_its_logged_steps(sweep: Path, tmp_path: Path) -> None:
    run(f"--workdir={sweep}", "--law=chinchilla", "--by=domain", "--map=N=params_total,D=tokens", "--bootstrap=0",
        "--logged", "--where=`schedule.peak` < 1", f"--out={tmp_path}")
    fits = pd.read_csv(tmp_path / "fits.csv").set_index("fit")
    assert fits.n.to_dict() == {"code": 90, "prose": 90}, "an older sweep's run is left out"


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "--domain: missing; expected one of code, prose, or --by=domain to fit each"),
    (["--by=status"], "--domain: missing; expected one of code, prose"),
    (["--domain=headers"], "--domain: 'headers' is no held-out domain of the sweep, which has code, prose"),
    (["--domain=code", "--table=my.csv"], "--table: my.csv and --workdir="),
    (["--domain=code", "--workdir=nowhere"], "--workdir=nowhere: expected the folder of a sweep, with experiment.json"),
])
def test_a_sweep_that_cannot_be_fitted_is_refused(sweep: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        run(f"--workdir={sweep}", "--law=chinchilla", "--map=N=params_total,D=tokens", *arguments)


def test_a_damaged_sweep_is_named(sweep: Path, tmp_path: Path) -> None:
    workdir = shutil.copytree(sweep, tmp_path / "sweep")
    path = workdir / "store" / "curves" / "all.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RequestError, match=rf"^{path}: damaged"):
        run(f"--workdir={workdir}", "--law=chinchilla", "--domain=code")


def test_rows_of_a_csv_file_are_its_lines(tmp_path: Path) -> None:
    table = simulated()
    table.loc[3, "tokens"] = -1
    table.to_csv(tmp_path / "bad.csv", index=False)
    line = (tmp_path / "bad.csv").read_text().splitlines()[4]
    assert line.split(",")[1] == "-1.0"
    with pytest.raises(TableError, match="column 'tokens', row 5: -1 is outside"):
        run(f"--table={tmp_path / 'bad.csv'}", *COMMAND)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--law=chinchilla"], "--table: missing; expected: CSV"),
        (["--table=TABLE"], "--law: missing; expected: Law by name, or 'all'"),
        (["--table=nowhere.csv", "--law=chinchilla"], "--table: no file at nowhere.csv"),
        (["--table=TABLE", "--law=chinchila"], "--law: no law named 'chinchila'; did you mean 'chinchilla'"),
        (["--table=TABLE", "--law=chinchilla", "--map=N:params"], "--map: 'N:params' is not INPUT=COLUMN"),
        (["--table=TABLE", "--law=chinchilla", "--map=N=params,N=tokens"], "--map: 'N' is given twice"),
        (["--table=TABLE", "--law=chinchilla", "--map=shares=loss_*"], "--map: law 'chinchilla' takes no shares"),
        (["--table=TABLE", "--law=data-mixing"], "--map: law 'data-mixing' needs the columns of its shares"),
        (
            ["--table=TABLE", "--law=data-mixing", "--map=shares=p_*"],
            "--map: no column matches shares=p_*; the table has par",
        ),
        (["--table=TABLE", "--law=bnsl"], "--law: law 'bnsl' needs exactly the arguments breaks"),
        (["--table=TABLE", "--law=bnsl", "--arguments={breaks}"], "--arguments: '{breaks}' is not JSON"),
        (
            ["--table=TABLE", "--law=chinchilla", "--where=size > 3"],
            "--where: 'size > 3' is no condition on the columns par",
        ),
        (["--table=TABLE", "--law=chinchilla", "--where=params > 1e12"], "--where: no row of 45 meets 'params > 1e12'"),
        (
            ["--table=TABLE", "--law=chinchilla", "--objective=huber:0"],
            "--objective: 'huber:0' (delta: 0.0 must be > 0)",
        ),
        (["--table=TABLE", "--law=chinchilla", "--objective=median"], "--objective: 'median' is not huber"),
        (
            ["--table=TABLE", "--law=chinchilla", "--target=N=7e9"],
            "--target: 'N=7e9' must give INPUT=VALUE for exactly N, D",
        ),
        (["--table=TABLE", "--law=chinchilla", "--target=N=7B,D=1e9"], "--target: N=7B is no number"),
        (
            ["--table=TABLE", "--law=chinchilla", "--profile=gamma"],
            "--profile: law 'chinchilla' has no parameter 'gamma'",
        ),
        (["--table=TABLE", "--law=all", "--map=loss=loss_*"], "--law: 'all' ranks laws for one target"),
        (["--table=TABLE", *COMMAND, "--group=family", "--stratum=params"], "stratum: a group has rows in two strata"),
        (["--table=TABLE", *COMMAND, "--domain=prose"], "--domain, --logged: a table has no such parts"),
        (["--list", "--law=chinchila"], "--law: no law named 'chinchila'; --list alone shows them all"),
    ],
)
def test_a_request_that_cannot_be_met_names_flag_value_and_cure(csv: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        run(*(argument.replace("TABLE", str(csv)) for argument in arguments))


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    for name, content, message in (
        ("a.csv", "", "cannot be read as csv"),
        ("a.parquet", "x", "cannot be read as parq"),
        ("a.xlsx", "x", "is neither .csv, .csv.gz nor .parquet; convert it"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(RequestError, match=message):
            run(f"--table={tmp_path / name}", "--law=chinchilla")


@pytest.mark.parametrize("damage", [lambda packed: packed[:-20], lambda packed: packed[:60] + b"?" * 9 + packed[69:]])
def test_a_packed_table_that_is_cut_or_damaged_is_refused(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "runs.csv.gz"
    simulated().to_csv(path, index=False)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RequestError, match=rf"--table: {path} cannot be read as gz \("):
        run(f"--table={path}", *COMMAND)


@pytest.mark.parametrize("law", ["chinchilla", "all"])
def test_a_place_for_no_folder_is_refused_before_anything_is_fitted(
    csv: Path, tmp_path: Path, law: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fit_each", "rank_all"):
        monkeypatch.setattr(verb, name, lambda *_, **__: pytest.fail("fitted first"))
    (tmp_path / "file").write_text("in the way")
    for out, reason in ((tmp_path / "file", "File exists"), (Path("/proc/x"), "No such file or directory")):
        with pytest.raises(RequestError, match=re.escape(f"--out: {out} is no folder to write to ({reason}); name")):
            run(f"--table={csv}", *COMMAND, f"--law={law}", f"--out={out}")


def test_a_disk_that_fills_while_figures_are_written_is_named(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match=rf"^{tmp_path}: no space left on device; free space and run the same command"):
        run(f"--table={csv}", *COMMAND, "--bootstrap=0", f"--out={tmp_path}")
    assert (tmp_path / "fit.json").exists()


def test_objectives_and_patterns() -> None:
    assert read_objective(None) is None
    assert read_objective("huber") == huber(1e-3)
    assert read_objective("huber:0.02:raw") == huber(0.02, "raw")
    assert read_objective("least_squares:log") == least_squares("log")
    table = pd.DataFrame(columns=["p_a", "p_b", "p_sum", "loss", "p_*"])
    assert matching(table, "p_?!p_[*]", "shares") == ["p_a", "p_b"]
    assert matching(table, "p_*", "shares") == ["p_*"]  # a column of that very name
    assert matching(table, "absent", "loss") == ["absent"]  # the fit says what it is for


def test_the_catalogue_shows_every_law_with_units_and_parameters() -> None:
    said = run("--list")
    assert all(f"{name}: " in said for name in (*LAWS, *FAMILIES))
    for law in LAWS.values():
        assert all(i.unit in said for i in law.inputs)
    one = run("--list", "--law=chinchilla")
    assert "inputs: N in (0, inf), parameters; D in (0, inf), tokens" in one
    assert "parameters: E, A [N^alpha], B [D^beta], alpha, beta" in one
    assert "breaks: number of breaks" in run("--list", "--law=bnsl")
