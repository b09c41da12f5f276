"""Time that passes only where the strategies wait, and nodes that take as long as a test says."""

import math
import time
from collections.abc import Callable, Iterable

import pytest
from faulty_grid import FaultyGrid, in_place_of
from federation import Federation
from flwr.app import Message
from flwr.common.constant import ErrorCode

Takes = Callable[[int, Message], float]  # node id and message -> seconds; infinity for ever


class Clock:
    """Stands in for the module `time` where strategies wait."""

    def __init__(self) -> None:
        self.now_s, self._start_s = 0.0, time.time()

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self._start_s + self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds


class ClockedGrid(FaultyGrid):
    """Its nodes are connected all the time, and take one message after the other, as SuperNodes do,
    but none that has expired.
    """

    clock: Clock
    takes: Takes

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._ready_s: dict[str, float] = {}
        self._busy_until_s: dict[int, float] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = list(super().push_messages(messages))
        for message_id in ids:
            message = self._asked[message_id]
            node_id = message.metadata.dst_node_id
            begun_s = max(self.clock.now_s, self._busy_until_s.get(node_id, 0.0))
            if begun_s - self.clock.now_s < message.metadata.ttl:
                self._busy_until_s[node_id] = begun_s + self.takes(node_id, message)
                self._ready_s[message_id] = self._busy_until_s[node_id]
            message.metadata.__dict__["_created_at"] = self.clock.time()
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        ready = []
        for message_id in message_ids:
            if self._ready_s.get(message_id, math.inf) <= self.clock.now_s:
                ready.append(message_id)
            elif (message := self._asked.get(message_id)) and (
                self.clock.time() > message.metadata.created_at + message.metadata.ttl
            ):
                yield in_place_of(self._asked.pop(message_id), ErrorCode.MESSAGE_UNAVAILABLE)
        yield from super().pull_messages(ready)


def clocked(federation: Federation, takes: Takes, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Put the federation's nodes under a clock; returns it."""
    clock = Clock()
    for module in ("beat", "exchange", "roster", "waiting"):
        monkeypatch.setattr(f"strategies.core.{module}.time", clock)
    grid = ClockedGrid(federation.config, list(federation.grid.contexts))
    grid.contexts = federation.grid.contexts
    grid.clock, grid.takes = clock, takes
    federation.grid = grid
    return clock
