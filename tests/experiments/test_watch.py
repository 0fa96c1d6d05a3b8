"""The terminal view of a sweep, live and finished, and its tables as CSV and as TensorBoard's event files."""

import dataclasses
import io
import json
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from experiments import export
from experiments.watch import watch
from experiments.watch_view import Sparkline, view
from scaling.fields import ConfigError
from scaling.seal import write_json
from scaling.store import Store, StoreError
from scaling.sweeps.heartbeat import Heartbeat
from scaling.sweeps.plan import Pack, Width
from scaling.sweeps.status import Status, read_status

NOW = 2000.0
LOSS = {"aaa": 2.0, "bbb": 1.5, "ccc": 4.0}
BEAT = Heartbeat("node", 7, 1000.0, NOW - 5, 2.0, 4, 1, 1, 6e6, 2e12, 8e12, 500.0, 9e3, 3e9, "")


def run_rows(**statuses: str) -> pd.DataFrame:
    return pd.DataFrame([{
        "run_id": run_id, "status": status, "steps": 100, "steps_trained": 100, "tokens": 1e5, "flops": 1e9,
        "wall_seconds": 3.0, "diverged_at": 40 if status == "diverged" else -1,
        "reason": "parent zzz failed" if status == "failed" else "", "model.width": 16, "model.tied_head": True,
        "training.seed": seed, "schedule.peak": 10.0 ** -(seed % 2 + 1), "optimizer.clip_norm": None,
    } for seed, (run_id, status) in enumerate(statuses.items())])


def curve_rows(run_id: str, last: float) -> pd.DataFrame:
    rows = [{"run_id": run_id, "step": step, "tokens": 1000 * step, "flops": 1e7 * step, "lr": 0.1 if step else np.nan,
             "split": split, "domain": domain, "loss": last + shift + 1 / (step + 1), "loss_se": 0.1,
             "bits_per_byte": last if split == "validation" else np.nan}
            for step in (0, 1, 10, 100) for split, domain, shift in
            (("validation", "prose", 0.0), ("validation", "code", 0.5), ("train", "mixture", 0.25))]
    return pd.DataFrame(rows)


def leave(workdir: Path, beat: Heartbeat) -> None:
    (workdir / "progress").mkdir(exist_ok=True)
    path = workdir / "progress" / f"{beat.host}-{beat.process}.json"
    path.write_text(json.dumps(dataclasses.asdict(beat)))


def plan(workdir: Path, *run_ids: str) -> None:
    write_json(workdir / "plan.json", [dataclasses.asdict(Pack("pack", run_ids, Width(4, 1, 1)))])


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """Four runs planned, three of them with rows."""
    store = Store(tmp_path / "store")
    plan(tmp_path, *LOSS, "ddd")
    store.write("runs", "job", run_rows(aaa="running", bbb="done", ccc="diverged"))
    for run_id, last in LOSS.items():
        store.write("curves", run_id, curve_rows(run_id, last))
    store.write("diagnostics", "job", pd.DataFrame(
        [{"run_id": "bbb", "step": 10, "name": "gradient_norm", "value": 3.5}]))
    leave(tmp_path, BEAT)
    return tmp_path


def read(workdir: Path) -> Status:
    return read_status(workdir, clock=lambda: NOW)


def text_of(status: Status) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(view(status))
    return console.file.getvalue()


def lines_of(text: str, title: str) -> list[list[str]]:
    """The words of the lines below a title, up to the next blank one."""
    lines = text[text.index(title):].splitlines()
    return [line.split() for line in lines[2:lines.index("") if "" in lines else None]]


def test_the_view_counts_runs_and_shows_losses_curves_runners_and_failures(workdir: Path) -> None:
    text = text_of(read(workdir))
    assert "4 runs: 1 done, 1 diverged, 1 running, 1 waiting; 2 left" in text
    assert "no runner at work" not in text
    assert lines_of(text, "Runners") == [
        ["node", "7", "working", "1/4", "9,000", "3e+09", "7", "33:20", "0:05", "ago"]]
    assert lines_of(text, "Last held-out") == [
        [domain, "2", f"{1.5 + shift:.4f}", f"{1.75 + shift:.4f}", f"{2 + shift:.4f}", "bbb", "seed=1", "peak=0.01"]
        for domain, shift in (("code", 0.5 + 1 / 101), ("prose", 1 / 101))]
    curves = lines_of(text, "Held-out loss against")
    assert [words[:3] for words in curves] == [
        [domain, run, why] for domain in ("code", "prose") for run, why in (("bbb", "lowest"), ("aaa", "latest"))]
    assert curves[2][3:] == ["2.000", curves[2][4], "1.510", "100"]
    reason = ["training", "loss", "above", "training.diverged_above,", "or", "not", "finite"]
    assert lines_of(text, "Ended early") == [["ccc", "diverged", "40", *reason, "seed=2", "peak=0.1"]]


def test_a_dead_runner_and_its_sweep_do_not_look_alive(workdir: Path) -> None:
    leave(workdir, dataclasses.replace(BEAT, seen=NOW - 3700))
    text = text_of(read(workdir))
    assert "no runner at work: start the same command again to go on" in text
    assert lines_of(text, "Runners") == [
        ["node", "7", "silent", "1/4", "12,000", "4e+09", "7", "-", "1:01:40", "ago"]]


def test_several_runners_are_shown_and_the_ended_counted(workdir: Path) -> None:
    leave(workdir, dataclasses.replace(BEAT, host="other", started=1001.0))
    leave(workdir, dataclasses.replace(BEAT, process=8, started=900.0, end="Preempted"))
    text = text_of(read(workdir))
    runners = lines_of(text, "Runners")
    assert [words[:3] for words in runners[:2]] == [["node", "7", "working"], ["other", "7", "working"]]
    assert "and 1 more that worked here" in text


def test_any_status_is_counted(workdir: Path) -> None:
    Store(workdir / "store").write("runs", "job", run_rows(aaa="stopped", bbb="done", ccc="failed", ddd="pondering"))
    status = read(workdir)
    assert status.counts == {"done": 1, "stopped": 1, "failed": 1, "pondering": 1}
    assert status.failures().reason.tolist() == ["", "parent zzz failed", ""]
    assert "4 runs: 1 done, 1 stopped, 1 failed, 1 pondering; 0 left" in text_of(status)


def test_a_sweep_that_has_just_begun_is_shown(tmp_path: Path) -> None:
    plan(tmp_path, "aaa", "bbb")
    status = read(tmp_path)
    assert "2 runs: 2 waiting; 2 left" in text_of(status)
    assert "no runner left a progress file here" in text_of(status)
    assert status.losses().empty
    assert list(status.tables()) == ["runs", "curves", "diagnostics", "losses", "failures", "throughput"]


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--workdir=.*: expected the folder of a sweep, with plan\.json or store/"):
        read(tmp_path)
    assert list(tmp_path.iterdir()) == [], "watching writes nothing"


def test_a_file_that_a_runner_replaces_meanwhile_is_read_again(workdir: Path) -> None:
    damaged = Store(workdir / "store").path("curves", "aaa")
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-9])
    slept: list[float] = []

    def mend(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            damaged.write_bytes(whole)

    assert len(read_status(workdir, sleep=mend).curves) == 36
    damaged.write_bytes(whole[:-9])
    with pytest.raises(StoreError, match=r"curves/aaa\.parquet: damaged"):
        read_status(workdir, sleep=lambda seconds: None)


def test_the_live_view_goes_on_to_the_end_through_what_it_cannot_read(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scaling.sweeps.status.PATIENCE", 0.0)
    store, slept = Store(workdir / "store"), []

    def advance(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            store.path("curves", "bad").write_bytes(b"PAR1")
        else:
            store.remove("curves", ["bad"])
            store.write("runs", "job", run_rows(aaa="done", bbb="done", ccc="done", ddd="done"))

    console = Console(file=io.StringIO(), width=140, force_terminal=True, color_system=None)
    watch(workdir, console, advance)
    shown = console.file.getvalue()
    places = [shown.index(part) for part in ("2 left", "CorruptFileError", "4 runs: 4 done; 0 left")]
    assert places == sorted(places)
    assert len(slept) == 2
    assert min(slept) >= 2.0


@pytest.mark.parametrize(("encoding", "levels"), [("utf-8", "▁▂▃▄▅▆▇█"), ("ascii", "_.-:=+*#")])
def test_a_falling_curve_falls_in_the_sparkline(encoding: str, levels: str) -> None:
    tokens = pd.Series([0.0, 1.0, 10.0, 100.0])
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding), width=100)
    with console.capture() as captured:
        console.print(Sparkline(tokens, pd.Series([99.0, 3.0, 2.0, 1.0])), Sparkline(tokens, pd.Series([1.0] * 4)))
    falling, flat = captured.get().split()
    heights = [levels.index(letter) for letter in falling]
    assert heights == sorted(heights, reverse=True)
    assert set(heights) == set(range(8)), "step 0 is not shown: it has no place on a log scale"
    assert set(flat) == {levels[0]}
    assert len(flat) == len(falling) == 28


def test_csv_holds_the_same_tables(workdir: Path, tmp_path: Path) -> None:
    status = read(workdir)
    said = export.to_csv(status, tmp_path / "out")
    assert "curves.csv (36 rows)" in said
    for name, table in status.tables().items():
        again = pd.read_csv(tmp_path / "out" / f"{name}.csv", keep_default_na=True)
        assert list(again) == list(table)
        assert len(again) == len(table)
    again = pd.read_csv(tmp_path / "out" / "curves.csv")
    np.testing.assert_array_equal(again.loss, status.curves.loss)


def crc32c(content: bytes) -> int:
    """Castagnoli's CRC, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def records(path: Path) -> Iterator[bytes]:
    """The records of an event file: length, its masked CRC, content, its masked CRC."""
    def masked(content: bytes) -> int:
        crc = crc32c(content)
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    data, at = path.read_bytes(), 0
    while at < len(data):
        head, (length, head_crc) = data[at:at + 8], struct.unpack_from("<QI", data, at)
        content, (crc,) = data[at + 12:at + 12 + length], struct.unpack_from("<I", data, at + 12 + length)
        assert (head_crc, crc) == (masked(head), masked(content))
        yield content
        at += 16 + length


def test_the_parser_knows_the_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # of the standard; CRC-32 gives another
    assert zlib.crc32(b"123456789") != 0xE3069283


def test_tensorboard_reads_back_what_the_store_holds(workdir: Path, tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    status = read(workdir)
    for _ in range(2):  # the second export replaces the first
        said = export.to_tensorboard(status, tmp_path / "boards")
    assert "event files of 4 runs; tensorboard --logdir=" in said
    assert sorted(path.name for path in (tmp_path / "boards").iterdir()) == ["aaa", "bbb", "ccc", "ddd"]
    path, = (tmp_path / "boards" / "bbb").iterdir()
    values = [(event.step, value) for event in map(Event.FromString, records(path)) for value in event.summary.value]
    scalars = {(value.tag, step): value.simple_value for step, value in values if not value.tag.startswith("_")}
    mine = status.curves[status.curves.run_id == "bbb"]
    wanted = {(f"loss/{row.split}/{row.domain}", row.step): row.loss for row in mine.itertuples()}
    wanted |= {(f"bits_per_byte/validation/{domain}", step): 1.5 for domain in ("prose", "code")
               for step in (0, 1, 10, 100)}
    wanted |= {("lr", step): 0.1 for step in (1, 10, 100)} | {("diagnostics/gradient_norm", 10): 3.5}
    assert scalars == {key: pytest.approx(value, rel=1e-6) for key, value in wanted.items()}
    start, = (value for _, value in values if value.tag == "_hparams_/session_start_info")
    found = HParamsPluginData.FromString(start.metadata.plugin_data.content).session_start_info.hparams
    assert found["model.width"].number_value == 16
    assert found["model.tied_head"].bool_value is True
    assert found["status"].string_value == "done"
    assert "optimizer.clip_norm" not in found


def test_without_the_extra_the_command_to_install_it_is_named(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"--export=tensorboard: .*pip install 'scaling\[tensorboard\]'"):
        export.to_tensorboard(read(workdir), tmp_path / "boards")
    assert not (tmp_path / "boards").exists()
