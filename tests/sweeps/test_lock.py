"""One runner a workdir: a second process is refused by name, a dead one holds nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scaling.sweeps.lock import LockedError, last_words, said, say, share, shared_lock, workdir_lock

HOLD = """
import subprocess, sys, time
from pathlib import Path
from scaling.sweeps.lock import workdir_lock
with workdir_lock(Path(sys.argv[1])):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds the lock of tmp_path, and has started a child that outlives it."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        yield process
        os.kill(child, signal.SIGKILL)
        process.kill()


def test_a_second_process_is_refused_and_told_who_holds(holder: subprocess.Popen, tmp_path: Path) -> None:
    message = rf"workdir {tmp_path}: another runner .* \(process {holder.pid} on .*\); wait for it or choose another"
    with pytest.raises(LockedError, match=message), workdir_lock(tmp_path):
        pass
    with pytest.raises(LockedError, match=message), workdir_lock(tmp_path):
        pytest.fail("a refused attempt must not take the lock, nor the holder's name")


def test_the_lock_of_a_killed_process_is_free(holder: subprocess.Popen, tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with workdir_lock(tmp_path):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")


def test_the_lock_is_free_after_an_exception(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), workdir_lock(tmp_path / "new"):
        raise ZeroDivisionError
    with workdir_lock(tmp_path / "new"), workdir_lock(tmp_path / "other"):
        assert (tmp_path / "new" / "lock").exists()


def test_a_lock_that_is_shared_takes_others_in_and_keeps_sole_holders_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with workdir_lock(tmp_path) as file:
        with pytest.raises(LockedError), shared_lock(path, "it"):
            pass
        assert last_words(path) is None
        say(file, "three of us")
        share(file, "it")
        with shared_lock(path, "it") as other:
            assert said(other) == "three of us"
            file.close()
            with pytest.raises(LockedError, match=r"another runner is at work there \(three of us\)"), \
                    workdir_lock(tmp_path):
                pass
    assert last_words(path) == "three of us"
