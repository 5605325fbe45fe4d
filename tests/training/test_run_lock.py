"""Two trainings never write into one folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rnem_world.errors import OutputError
from rnem_world.training.run_lock import LOCK_FILE, RunLock

HOLD = """
import sys, time
from pathlib import Path
from rnem_world.training.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_lock_is_refused_and_says_who_has_the_first(tmp_path):
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    first.acquire()
    first.acquire()
    with pytest.raises(OutputError, match=rf"is being trained by process {os.getpid()} on .*--out"):
        second.acquire()
    first.release()
    second.acquire()
    first.release()  # takes nothing from the second
    with pytest.raises(OutputError, match="is being trained"):
        first.acquire()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_its_process_even_if_that_is_killed(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(OutputError, match=f"process {process.pid}"):
        RunLock(tmp_path).acquire()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / LOCK_FILE).exists()
    lock = RunLock(tmp_path)
    lock.acquire()
    lock.release()


def test_a_lock_ends_with_the_last_that_knows_it(tmp_path):
    lock = RunLock(tmp_path)
    lock.acquire()
    del lock
    RunLock(tmp_path).acquire()


def test_a_file_that_its_holder_has_just_removed_is_no_lock(tmp_path, monkeypatch):
    """The first one opened the file before its holder removed it, and gets its lock afterwards."""
    import fcntl

    holder, late, third = (RunLock(tmp_path) for _ in range(3))
    holder.acquire()
    flock = fcntl.flock

    def delayed(descriptor, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        holder.release()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", delayed)
    late.acquire()
    with pytest.raises(OutputError, match="is being trained"):
        third.acquire()


def test_a_run_in_training_can_be_neither_resumed_nor_begun(tiny, tmp_path, listing):
    run = tmp_path / "run"
    tiny.fit(run, max_updates=1)
    lock = RunLock(run)
    lock.acquire()
    before = listing(tmp_path)
    for resume in (True, False):
        with pytest.raises(OutputError, match="is being trained"):
            tiny.fit(run, max_updates=2, resume=resume)
    assert listing(tmp_path) == before
    lock.release()
    tiny.fit(run, max_updates=2, resume=True)
    assert not (run / LOCK_FILE).exists()


def test_a_new_run_has_its_folder_for_itself_from_the_start(tiny, tmp_path):
    with (
        tiny.trainer(tmp_path / "run", max_updates=1) as holder,
        pytest.raises(OutputError, match="is being trained"),
    ):
        tiny.fit(tmp_path / "run", resume=True)
    holder.fit()  # as its own, it may


def test_trainings_that_begin_at_once_leave_each_others_files_alone(tiny, tmp_path):
    """One holds the lock of a folder that is still empty otherwise."""
    run: Path = tmp_path / "run"
    run.mkdir()
    lock = RunLock(run)
    lock.acquire()
    with pytest.raises(OutputError, match="is being trained"):
        tiny.fit(run)
    assert [path.name for path in run.iterdir()] == [LOCK_FILE]
