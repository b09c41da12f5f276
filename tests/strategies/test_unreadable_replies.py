"""Replies whose bytes Flower itself cannot read: they end no run, and hide no other reply."""

import pytest
from federation import NODES
from flwr.app import ArrayRecord
from flwr.superlink.grid import http_grid

from strategies.core.exchange import pull


class Uploaded:
    """A grid that reads what was uploaded as Flower's own does, by its function."""

    def __init__(self, contents):
        self.contents = contents

    def pull_messages(self, ids):
        return [http_grid.inflate_object_from_contents(i, dict(self.contents[i])) for i in ids]


RECORD = ArrayRecord()
UNREADABLE = {
    "no object at all": b"garbage",
    "nothing": b"",
    "an object of an unknown kind": b"Nonsense 0\x00",
    "a message whose parts are missing": b"Message " + b"a" * 64 + b" 9\x00\xff\xff\xff\xff\xff",
    "another object than a message": RECORD.deflate(),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_counts_as_silence_and_the_reply_beside_it_is_read(
    kind, federate, caplog
):
    federation = federate(num_rounds=1).begin()
    federation.rounds(1)
    honest = federation.received("train")[NODES[0]]
    honest_id = "h"
    readable = {honest_id: honest.deflate()}
    for record in honest.content.values():
        readable[record.object_id] = record.deflate()
    readable[honest.content.object_id] = honest.content.deflate()
    grid = Uploaded({"x": {"x": UNREADABLE[kind]}, honest_id: readable})
    bad, good = pull(grid, ["x", honest_id])
    assert bad.has_error()
    assert bad.metadata.reply_to_message_id == ""
    assert good.content.config_records == honest.content.config_records
    assert "A reply cannot be read, and counts as silence: " in caplog.text
    with pytest.raises(Exception):  # noqa: B017 - whatever Flower raises by itself
        assert grid.pull_messages(["x"])[0].has_error()
