"""For whom messages wait, by the database of a real SuperLink's state."""

import sqlite3
import time
from contextlib import closing

import pytest
from flwr.superlink.config_loader import (
    get_federation_manager,
    get_objectstore_linkstate_factories,
)

from fed_ist.relay.mailbox import Mailbox


@pytest.fixture
def database(tmp_path):
    return tmp_path / "superlink.db"


@pytest.fixture
def superlink(database):
    factories = get_objectstore_linkstate_factories(str(database), get_federation_manager())
    return factories[1].state()


def insert(database, node_id: int, *, delivered_at: str = "", age_s: float = 0.0) -> None:
    """A message as Flower stores it, which was sent `age_s` ago and is good for 60 s."""
    signed = node_id - 2**64 if node_id >= 2**63 else node_id
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "INSERT INTO message_ins (message_id, dst_node_id, created_at, ttl, delivered_at) "
            "VALUES (?, ?, ?, 60, ?)",
            (f"{node_id}{delivered_at}{age_s}", signed, time.time() - age_s, delivered_at),
        )
        connection.commit()


def test_a_node_is_found_by_its_key_while_it_is_registered(superlink, database):
    mailbox = Mailbox(database)
    nodes = {key: superlink.create_node("owner", "owner", key, 30) for key in (b"a", b"b", b"c")}
    assert {key: mailbox.node_id(key) for key in nodes} == nodes
    superlink.delete_node("owner", nodes[b"b"])
    assert mailbox.node_id(b"b") is None
    assert mailbox.node_id(b"nobody") is None


def test_messages_wait_until_they_are_fetched_or_too_old(superlink, database):
    mailbox = Mailbox(database)
    assert superlink.num_message_ins() == 0
    assert mailbox.waiting() == set()
    large, small = 2**64 - 5, 7
    insert(database, large)
    insert(database, large, age_s=1.0)
    insert(database, small)
    insert(database, 8, delivered_at="2026-12-01T00:00:00+00:00")
    insert(database, 9, age_s=61.0)
    assert mailbox.waiting() == {large, small}


def test_without_a_database_nothing_is_guessed(database):
    with pytest.raises(OSError):
        Mailbox(database).waiting()
    database.write_bytes(b"")
    with pytest.raises(sqlite3.Error):
        Mailbox(database).waiting()
