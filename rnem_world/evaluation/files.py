"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from rnem_world.errors import OutputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` to write to, which takes its place once the block has succeeded.

    Missing folders are created. When the block raises, the temporary file is removed and whatever stood at
    ``path`` stays as it was.

    Args:
        path: Where the file will be.

    Yields:
        The temporary path, with the same suffix, because writers choose the format by it.

    Raises:
        OutputError: The block, or the replacement after it, met an ``OSError``.
    """
    temporary = path.with_name(f".{path.stem}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        if path.parent.exists() and not path.parent.is_dir():
            raise OutputError(
                f"can't write {str(path)!r}: {str(path.parent)!r} is a file; give another folder"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OutputError:
        raise
    except OSError as error:
        # Some libraries put a whole log into the message; a user needs the first line.
        reason = error.strerror or (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OutputError(
            f"can't write {str(path)!r}: {reason}; give a path in a folder that can be written to, "
            f"on a disk with free space"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
