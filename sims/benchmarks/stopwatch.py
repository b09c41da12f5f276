"""Measures the seconds that code takes, by step."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Seconds = dict[str, float]


class Stopwatch:
    """The seconds of each step, by any clock. A step within another stops the outer one."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: Seconds = defaultdict(float)
        self._clock = clock
        self._running: list[tuple[str, float]] = []

    @contextmanager
    def on(self, step: str) -> Iterator[None]:
        """Count the time within the block for a step."""
        self._stop()
        self._running.append((step, self._clock()))
        try:
            yield
        finally:
            self._stop()
            self._running.pop()
            if self._running:
                self._running[-1] = (self._running[-1][0], self._clock())

    def _stop(self) -> None:
        if self._running:
            step, since = self._running[-1]
            self.seconds[step] += self._clock() - since

    def take(self) -> Seconds:
        """The seconds so far, by step; counting starts anew after it."""
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds
