"""Making things ahead of time on a background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class _End:
    pass


_POLL_SECONDS = 0.1


def prefetch(produce: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Yields what ``produce`` yields, made up to ``depth`` items ahead by a thread of its own.

    The thread starts with the first item asked for. When the generator is closed, dropped or fails, the
    thread has ended before control returns. An exception in ``produce`` is raised where its item would have
    come.

    Args:
        produce: What to run; only the thread touches it.
        depth: How many finished items wait at most.

    Yields:
        The items, in order.
    """
    items: queue.Queue[T | _Failure | _End] = queue.Queue(maxsize=depth)
    abandoned = threading.Event()

    def put(item: T | _Failure | _End) -> bool:
        while not abandoned.is_set():
            try:
                items.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return not abandoned.is_set()  # perhaps it was set while this waited
        return False

    def work() -> None:
        try:
            for item in produce:
                if not put(item):
                    return
        except BaseException as error:  # it's raised again in the caller's thread
            put(_Failure(error))
        else:
            put(_End())

    thread = threading.Thread(target=work, name="rnem-world-prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := items.get(), _End):
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        abandoned.set()
        while not items.empty():  # wakes a thread that waits for a free place
            items.get_nowait()
        thread.join()
