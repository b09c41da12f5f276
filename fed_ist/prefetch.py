"""Work done ahead of its use, in threads: decoding and packing go on while a model encodes.

Pillow, numpy and torch release Python's lock while they compute, so threads are enough.
"""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

N_WORKERS = min(4, os.cpu_count() or 1)


def mapped(
    work: Callable[[A], B],
    items: Iterable[A],
    n_ahead: int = 64,
    begin: Callable[[], None] | None = None,
) -> Iterator[B]:
    """The results of `work` on each item, in the order of the items, computed in threads.

    n_ahead: how many results may be ready before they are used.
    begin: called in each thread before its first item.
    """
    with ThreadPoolExecutor(N_WORKERS, initializer=begin) as pool:
        waiting: deque[Future[B]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= n_ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@dataclass(frozen=True)
class _End:
    """Closes a queue; carries what stopped the producer, if anything did."""

    error: BaseException | None


def ahead(items: Iterator[A], n_ahead: int = 2) -> Iterator[A]:
    """The items themselves, produced in a thread while the caller works on earlier ones.

    n_ahead: how many items may be ready before they are used. What `items` raises is raised here.
    """
    ready: queue.Queue[A | _End] = queue.Queue(n_ahead)
    stop = threading.Event()

    def put(item: A | _End) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    break
            put(_End(None))
        except BaseException as error:  # passed on to the consumer, which raises it
            put(_End(error))
        finally:
            close = getattr(items, "close", None)
            if close:
                close()

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        thread.join()
