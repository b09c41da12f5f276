"""Seconds that code takes, by part."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Seconds = dict[str, float]


class Stopwatch:
    """Seconds by part, of any clock. A part within another counts for itself alone."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: Seconds = defaultdict(float)
        self._clock = clock
        self._running: list[tuple[str, float]] = []

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        self._stop()
        self._running.append((part, self._clock()))
        try:
            yield
        finally:
            self._stop()
            self._running.pop()
            if self._running:
                self._running[-1] = (self._running[-1][0], self._clock())

    def _stop(self) -> None:
        if self._running:
            part, since = self._running[-1]
            self.seconds[part] += self._clock() - since

    def take(self) -> Seconds:
        """What was measured so far; from then on it starts anew."""
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds
