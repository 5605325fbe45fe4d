from __future__ import annotations

import errno
import json
import os
import threading

import numpy as np
import pytest

from rnem_world.errors import OutputError
from rnem_world.training.logging import LOG_FILE, TENSORBOARD, RunLog, read_log


def curves(run) -> dict[str, dict[int, float]]:
    """What TensorBoard shows, by curve and step; a step that comes twice is an error."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / TENSORBOARD), purge_orphaned_data=True)
    events.Reload()
    shown = {}
    for name in events.Tags()["scalars"]:
        steps = [event.step for event in events.Scalars(name)]
        assert len(steps) == len(set(steps)), f"{name} has doubles: {steps}"
        shown[name] = {event.step: event.value for event in events.Scalars(name)}
    return shown


def test_entries_are_read_back_and_shown(tmp_path):
    log = RunLog(tmp_path)
    log.write("training", 1, {"loss": 2.5, "steps": [1.0, 2.0]})
    log.write("validation", 1, {"losses": {"loss": {"total": 4.0}}, "ari": float("nan")})
    log.picture("overview", 1, np.zeros((4, 5, 3), np.uint8))
    log.close()
    first, second = read_log(tmp_path)
    assert first == {"kind": "training", "update": 1, "loss": 2.5, "steps": [1.0, 2.0]}
    assert second["losses"] == {"loss": {"total": 4.0}}
    assert curves(tmp_path) == {"training/loss": {1: 2.5}, "validation/losses/loss/total": {1: 4.0}}


def test_entries_are_on_the_disk_at_once(tmp_path):
    log = RunLog(tmp_path)
    log.write("training", 1, {"loss": 2.5})
    assert read_log(tmp_path)
    assert curves(tmp_path)
    assert log.position == (tmp_path / LOG_FILE).stat().st_size
    log.close()


def test_a_resumed_log_forgets_what_came_after_the_checkpoint(tmp_path):
    log = RunLog(tmp_path)
    log.write("training", 1, {"loss": 1.0})
    position = log.position
    log.write("training", 2, {"loss": 2.0})
    log.write("training", 3, {"loss": 3.0})
    log.close()
    log = RunLog(tmp_path, position, 1)
    log.write("training", 2, {"loss": 20.0})
    log.close()
    assert [entry["loss"] for entry in read_log(tmp_path)] == [1.0, 20.0]
    assert curves(tmp_path) == {"training/loss": {1: 1.0, 2: 20.0}}


def test_a_log_resumed_at_its_beginning_has_no_doubles(tmp_path):
    for loss in (1.0, 2.0):
        log = RunLog(tmp_path, 0, 0)
        log.write("training", 1, {"loss": loss})
        log.close()
    assert [entry["loss"] for entry in read_log(tmp_path)] == [2.0]
    assert curves(tmp_path) == {"training/loss": {1: 2.0}}


def test_an_unfinished_last_line_is_left_out(tmp_path):
    assert read_log(tmp_path) == []
    (tmp_path / LOG_FILE).write_text(json.dumps({"update": 1}) + "\n" + '{"upd')
    assert read_log(tmp_path) == [{"update": 1}]


@pytest.mark.parametrize("what", ["write", "picture"])
def test_a_full_disk_is_an_error_in_the_thread_that_writes(what, tmp_path, file_size_limit):
    log = RunLog(tmp_path)
    threads = threading.active_count()
    noise = np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8)

    def fill():
        for update in range(100):
            log.write("training", update, {"loss": 2.5}) if what == "write" else log.picture(
                "p", update, noise
            )

    with file_size_limit(2000), pytest.raises(OutputError, match=r"can.t write .*log.jsonl.*large"):
        fill()
    assert threading.active_count() == threads
    log.close()
    assert all(entry["loss"] == 2.5 for entry in read_log(tmp_path))


def test_a_log_that_cannot_be_opened_or_synchronised(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"can't write .*log.jsonl"):
        RunLog(tmp_path / "file")
    log = RunLog(tmp_path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        _ = log.position
    log.close()
