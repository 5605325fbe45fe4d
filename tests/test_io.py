from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rnem_world.errors import OutputError
from rnem_world.io import (
    DISPLACED,
    Lock,
    atomic_file,
    atomic_folder,
    put_in_place,
    tidy_folders,
    write_json,
)


def test_the_file_appears_only_after_the_block(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_file(path) as temporary:
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
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(expected) as caught:
        fail()
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"), atomic_file(tmp_path / "a.txt"):
        pass


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from rnem_world.io import atomic_file\n"
        "with atomic_file(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "writing\n"
        with atomic_file(path) as temporary:
            temporary.write_text("whole")
        assert len(list(tmp_path.iterdir())) == 2
        writer.send_signal(signal.SIGKILL)
    with atomic_file(path) as temporary:
        temporary.write_text("again")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "again"


def test_a_folder_or_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    with (
        pytest.raises(OutputError, match="it is a folder; give the name"),
        atomic_file(tmp_path / "folder.txt"),
    ):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file is a file"), atomic_file(tmp_path / "file" / "x.txt"):
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


def test_a_folder_appears_only_after_the_block_and_replaces_what_was_there(tmp_path, listing):
    path = tmp_path / "new" / "folder"
    for content in ("one", "two"):
        with atomic_folder(path) as temporary:
            (temporary / "x.txt").write_text(content)
            (temporary / "x.txt").chmod(0o600)
        assert (path / "x.txt").read_text() == content
        assert (path / "x.txt").stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]
    before = listing(tmp_path)

    def fail() -> None:
        with atomic_folder(path) as temporary:
            (temporary / "x.txt").write_text("three")
            raise OSError("broken")

    with pytest.raises(OutputError, match=r"can't write .*folder: broken"):
        fail()
    assert listing(tmp_path) == before
    assert (path / "x.txt").read_text() == "two"


def test_a_replacement_that_fails_puts_the_earlier_one_back(tmp_path, listing):
    (tmp_path / "a.h5").write_text("old")
    before = listing(tmp_path)
    with pytest.raises(OutputError, match="No such file"):
        put_in_place(tmp_path / "nothing", tmp_path / "a.h5")
    assert listing(tmp_path) == before


def test_a_replacement_that_was_killed_is_put_back(tmp_path):
    aside = tmp_path / ".my.folder.0123.tmp"
    (aside / DISPLACED).mkdir(parents=True)
    (tmp_path / ".other.4567.tmp").mkdir()
    tidy_folders(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "my.folder"]


def test_a_second_lock_is_refused_and_says_who_has_the_first(tmp_path):
    first, second = (Lock(tmp_path / "x.lock", "x is being made") for _ in range(2))
    first.acquire()
    first.acquire()
    with pytest.raises(OutputError, match=rf"^x is being made by process {os.getpid()} on .*--out"):
        second.acquire()
    first.release()
    with second:
        first.release()  # takes nothing from the second
        with pytest.raises(OutputError, match="x is being made"):
            first.acquire()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_its_process_even_if_that_is_killed(tmp_path):
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from rnem_world.io import Lock\n"
        "lock = Lock(Path(sys.argv[1]), 'x')\n"
        "lock.acquire()\n"
        "print('held', flush=True)\n"
        "time.sleep(600)\n"
    )
    path = tmp_path / "x.lock"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=f"process {process.pid}"):
            Lock(path, "x").acquire()
        process.send_signal(signal.SIGKILL)
    assert path.exists()
    with Lock(path, "x"):
        pass
    assert not path.exists()


def test_a_lock_ends_with_the_last_that_knows_it(tmp_path):
    lock = Lock(tmp_path / "x.lock", "x")
    lock.acquire()
    del lock
    Lock(tmp_path / "x.lock", "x").acquire()


def test_a_file_that_its_holder_has_just_removed_is_no_lock(tmp_path, monkeypatch):
    """The second one opened the file before its holder removed it, and gets its lock afterwards."""
    import fcntl

    holder, late, third = (Lock(tmp_path / "x.lock", "x is being made") for _ in range(3))
    holder.acquire()
    flock = fcntl.flock

    def delayed(descriptor, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        holder.release()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", delayed)
    late.acquire()
    with pytest.raises(OutputError, match="is being made"):
        third.acquire()


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    import fcntl

    def none(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with Lock(tmp_path / "x.lock", "x"), Lock(tmp_path / "x.lock", "x"):
        pass
