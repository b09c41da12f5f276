"""Messages to nodes, and what comes back: replies, and which nodes were not heard of.

For a node that is away, and for a message that has expired, Flower's SuperLink answers itself. That
has crossed no link, and is no reply of the node's.
"""

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from logging import WARNING
from typing import Any

from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common import log
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.superlink.grid import http_grid

from fed_ist.printable import printable

LEAST_POLL_S, MOST_POLL_S = 0.02, 3.0  # the latter is Flower's own
POLLS = 20  # in the time so far, as the pause between two grows with it
AT_ONCE = 32  # messages that are pushed or pulled in one go: all together could fill the memory
PATIENCE_S = 60.0
LAST_POLL_S = 0.1  # before messages expire; a simulation's SuperLink fails when asked for such
UNAVAILABLE = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)
OF_SUPERLINK = (*UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)  # errors that no node has sent


@dataclass(frozen=True)
class Asked:
    """A message that its node may answer.

    kind: Flower's message type. group: Flower's group id. asked_s: when (`time.monotonic`).
    expires_s: until when (`time.time`) Flower takes an answer.
    """

    node_id: int
    kind: str
    group: str
    asked_s: float
    expires_s: float

    @property
    def is_open(self) -> bool:
        """Whether Flower still takes an answer."""
        return time.time() < self.expires_s - LAST_POLL_S


@dataclass(frozen=True)
class Progress:
    """How far an exchange is.

    answered_s: seconds that nodes took which answered without an error. waiting: the others' ids.
    n_earlier: answers without an error to messages of before.
    """

    answered_s: Mapping[int, float]
    waiting: Sequence[int]
    n_earlier: int


@dataclass(frozen=True)
class Missing:
    """What did not come.

    away: ids of nodes that have left, or that were not heard of for a minute. silent: of the
    others that did not answer in time. unanswered: messages of the latter, by their ids, unless the
    SuperLink has dropped them.
    n_foreign: replies that say they are another node's. progress: at the end. waited_s: how long it
    took.
    """

    away: list[int]
    silent: list[int]
    unanswered: dict[str, Asked]
    n_foreign: int
    progress: Progress
    waited_s: float


def exchange(
    grid: Grid,
    messages: Iterable[Message],
    timeout_s: float,
    until: Callable[[Progress], float] | None = None,
    earlier: Mapping[str, Asked] | None = None,
) -> Generator[Message, None, Missing]:
    """Send messages, one a node, and yield the nodes' replies as they come.

    until: after how many seconds to end, if not all have answered and `timeout_s` is not over.
    earlier: messages of before, to which replies are taken too.

    On a link that loses much, heartbeats fail for a minute while a node is at work. So one that
    seems to be away is waited for as long again as until then, though for `PATIENCE_S` and within
    `timeout_s` at most; and if it is heard of meanwhile, like any other.
    """
    begun_s = time.monotonic()
    asked, waiting = _push(grid, messages)
    expires_s = min((each.expires_s for each in asked.values()), default=math.inf)
    left_s = expires_s - time.time()
    end_s = min(begun_s + timeout_s, time.monotonic() + left_s) - LAST_POLL_S
    before = dict(earlier or {})
    asked, waiting = asked | before, waiting | dict.fromkeys(before)
    answered: set[int] = set()
    answered_s: dict[int, float] = {}
    n_earlier = n_foreign = 0
    expired: set[str] = set()  # of those of before
    progress = Progress({}, [], 0)
    away: dict[str, float] = {}  # until when nodes that seem to be away are waited for
    while waiting:
        connected = set(grid.get_node_ids())
        expired |= {i for i in waiting if i in before and not asked[i].is_open}
        waiting = {i: None for i in waiting if i not in expired}
        # Asked about a node that is away, the SuperLink would drop the message and the reply to it.
        for reply in pull(grid, [i for i in waiting if asked[i].node_id in connected]):
            message_id = reply.metadata.reply_to_message_id
            code = reply.error.code if reply.has_error() else None
            if message_id not in waiting:
                n_foreign += 1
                continue
            waiting.pop(message_id)
            node_id = asked[message_id].node_id
            if code not in OF_SUPERLINK and reply.metadata.src_node_id != node_id:
                # The SuperLink knows from whom it is, but not what the node has written into it.
                answered.add(node_id)
                n_foreign += 1
                continue
            if code == ErrorCode.NODE_UNAVAILABLE:  # it has left in this very moment
                away[message_id] = 0.0
            elif code not in UNAVAILABLE:
                answered.add(node_id)
                if code is None and message_id in before:
                    n_earlier += 1
                elif code is None:
                    answered_s[node_id] = time.monotonic() - begun_s
                yield reply
        now_s = time.monotonic()
        for message_id in list(waiting):
            if asked[message_id].node_id in connected:
                away.pop(message_id, None)
            elif now_s >= away.setdefault(message_id, now_s + min(now_s - begun_s, PATIENCE_S)):
                waiting.pop(message_id)
        others = [asked[i].node_id for i in waiting if i not in before]
        progress = Progress(answered_s, others, n_earlier)
        stop_s = end_s if until is None else min(end_s, begun_s + until(progress))
        if not waiting or now_s >= stop_s:
            break
        pause_s = min(MOST_POLL_S, max(LEAST_POLL_S, (now_s - begun_s) / POLLS))
        time.sleep(min(pause_s, stop_s - now_s))
    missing = {i: each for i, each in asked.items() if each.node_id not in answered}
    silent = {i: each for i, each in missing.items() if i not in away}
    return Missing(
        away=[each.node_id for i, each in missing.items() if i in away],
        silent=[each.node_id for each in silent.values()],
        unanswered={i: each for i, each in silent.items() if i in waiting or i in expired},
        n_foreign=n_foreign,
        progress=progress,
        waited_s=time.monotonic() - begun_s,
    )


def _push(grid: Grid, messages: Iterable[Message]) -> tuple[dict[str, Asked], dict[str, None]]:
    """(what nodes are asked, by the ids of the messages; the ids of those that the SuperLink has
    taken, in the order in which they were sent).
    """
    asked: dict[str, Asked] = {}
    taken: dict[str, None] = {}
    left = iter(messages)
    while part := list(islice(left, AT_ONCE)):
        ids = set(grid.push_messages(part))
        for message in part:
            metadata = message.metadata
            asked[metadata.message_id] = Asked(
                metadata.dst_node_id,
                metadata.message_type,
                metadata.group_id,
                time.monotonic(),
                metadata.created_at + metadata.ttl,
            )
            if metadata.message_id in ids:
                taken[metadata.message_id] = None
    return asked, taken


def pull(grid: Grid, ids: Sequence[str]) -> Iterable[Message]:
    """The replies to these messages that are there; of nodes that are connected."""
    with _unreadable_in_place():
        for first in range(0, len(ids), AT_ONCE):
            yield from grid.pull_messages(ids[first : first + AT_ONCE])


@contextmanager
def _unreadable_in_place() -> Iterator[None]:
    """Within it a reply that Flower cannot read comes as an error that answers nothing.

    A node uploads its reply in parts, whose bytes nobody has looked at when Flower's grid reads
    them; it would raise what went wrong with one, and lose those that came with it.
    """
    read = http_grid.inflate_object_from_contents  # type: ignore[attr-defined]

    def read_or_tell(object_id: str, *rest: Any, **how: Any) -> Any:
        try:
            found = read(object_id, *rest, **how)
            if isinstance(found, Message):
                return found
            reason = f"it is no message but a {type(found).__name__}"
        except Exception as error:  # whatever a node may have put there
            reason = f"{type(error).__name__}: {error}"
        log(WARNING, "A reply cannot be read, and counts as silence: %s", printable(reason)[:300])
        metadata = Metadata(0, "", 0, 0, "", "", time.time(), 0.0, "train")
        return make_message(metadata, error=Error(ErrorCode.UNKNOWN))

    http_grid.inflate_object_from_contents = read_or_tell  # type: ignore[attr-defined]
    try:
        yield
    finally:
        http_grid.inflate_object_from_contents = read  # type: ignore[attr-defined]
