from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from rnem_world.errors import OutputError
from rnem_world.files import replacing, write_json


def test_the_file_appears_only_after_the_block(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".txt"
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "expected"),
    [(OSError("ffmpeg died\nlong log"), OutputError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_failure_keeps_the_old_file_and_removes_the_temporary(
    error: BaseException, expected: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(expected) as caught:
        fail()
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"), replacing(tmp_path / "a.txt"):
        pass


def test_json_is_written_at_once_or_not_at_all(tmp_path, monkeypatch, listing):
    path = tmp_path / "new" / "x.json"
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    before = listing(tmp_path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_json(path, {"a": 22})
    assert listing(tmp_path) == before
    assert json.loads(path.read_text()) == {"a": 1}
