"""Two trainings never write into one folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from rnem_world.errors import OutputError
from rnem_world.io import Lock
from rnem_world.training.run import LOCK_FILE


def test_a_run_in_training_can_be_neither_resumed_nor_begun(tiny, tmp_path, listing):
    run = tmp_path / "run"
    tiny.fit(run, max_updates=1)
    lock = Lock(run / LOCK_FILE, "it is being trained")
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
    lock = Lock(run / LOCK_FILE, "it is being trained")
    lock.acquire()
    with pytest.raises(OutputError, match="is being trained"):
        tiny.fit(run)
    assert [path.name for path in run.iterdir()] == [LOCK_FILE]
