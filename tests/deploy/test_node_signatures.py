"""Who may pass the gate, by what Flower's SuperNodes sign and its SuperLink has registered."""

import secrets
import sqlite3
import time
from base64 import b64decode, b64encode
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from hypothesis import example, given
from hypothesis import strategies as st

from fed_ist.deploy.gatekeeper import bound_log
from fed_ist.deploy.node_signatures import (
    AHEAD_S,
    BEHIND_S,
    LATER,
    MAY_PASS,
    PUBLIC_KEY,
    REFUSED,
    SIGNATURE,
    TIMESTAMP,
    Doorkeeper,
    fingerprint,
    sign,
)
from fed_ist.deploy.registered_keys import RegisteredKeys
from fed_ist.deploy.state_database import StateDatabase
from fed_ist.deploy.verifier import decide

KEY, STRANGERS = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
BEGAN = datetime(2026, 11, 30, 9, tzinfo=UTC)


def pem(key) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


class Clock:
    """What the gate takes for the time."""

    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> float:
        return self.now.timestamp()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def doorkeeper(clock):
    """One who knows `KEY`, and has been there for an hour."""
    found = Doorkeeper(lambda key: key == pem(KEY), clock, clock)
    clock.now += timedelta(hours=1)
    return found


def signed(moment: datetime, key=KEY, claimed=None) -> dict[str, str]:
    """Headers as of a moment. claimed: whose key is named, if another's."""
    timestamp = moment.isoformat()
    signature = key.sign(timestamp.encode(), ec.ECDSA(hashes.SHA256()))
    return {
        PUBLIC_KEY: b64encode(pem(claimed or key)).decode(),
        TIMESTAMP: timestamp,
        SIGNATURE: b64encode(signature).decode(),
    }


def test_what_flowers_supernode_sends_passes():
    from flwr.proto.fleet_pb2 import PullMessagesRequest
    from flwr.supercore.protobuf.client import ProtobufRequestContext
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    request = httpx.Request("POST", "https://a/v1/fleet/pull-messages")
    context = ProtobufRequestContext("", PullMessagesRequest(), request)
    doorkeeper = Doorkeeper(lambda key: key == pem(KEY), time.time, time.monotonic)
    doorkeeper.began -= 60
    NodeAuthHttpInterceptor(KEY, KEY.public_key()).intercept(context, lambda _: httpx.Response(200))
    assert doorkeeper.judge(request.headers) == MAY_PASS


def test_the_doctor_signs_as_flowers_superlink_wants_it():
    from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

    headers = sign(KEY)
    key = bytes_to_public_key(b64decode(headers[PUBLIC_KEY]))
    assert verify_signature(key, headers[TIMESTAMP].encode(), b64decode(headers[SIGNATURE]))


def test_names_and_window_are_flowers():
    from flwr.common import constant
    from flwr.supercore import constant as supercore

    assert PUBLIC_KEY == supercore.FLEET_HTTP_PUBLIC_KEY_HEADER
    assert SIGNATURE == supercore.FLEET_HTTP_SIGNATURE_HEADER
    assert TIMESTAMP == constant.TIMESTAMP_HEADER
    assert AHEAD_S == constant.SYSTEM_TIME_TOLERANCE
    assert BEHIND_S == constant.SYSTEM_TIME_TOLERANCE + constant.TIMESTAMP_TOLERANCE


def test_a_signature_passes_once(doorkeeper, clock):
    headers = signed(clock.now)
    assert doorkeeper.judge(headers) == MAY_PASS
    for later_s in (0, 1, 300, 304):
        clock.now = BEGAN + timedelta(hours=1, seconds=later_s)
        assert doorkeeper.judge(headers).reason == "signature used before"
    clock.now += timedelta(seconds=2)
    assert doorkeeper.judge(headers).reason == "its clock is 306 s behind"
    assert doorkeeper.judge(signed(clock.now)) == MAY_PASS


def test_a_signature_made_of_one_that_passed_does_not_pass(doorkeeper, clock):
    """Of each signature by ECDSA, anybody can make the one other that is valid too."""
    headers = signed(clock.now)
    r, s = decode_dss_signature(b64decode(headers[SIGNATURE]))
    other = encode_dss_signature(r, P256_ORDER - s)
    KEY.public_key().verify(other, headers[TIMESTAMP].encode(), ec.ECDSA(hashes.SHA256()))
    assert doorkeeper.judge(headers) == MAY_PASS
    again = headers | {SIGNATURE: b64encode(other).decode()}
    assert doorkeeper.judge(again).reason == "signature used before"


def test_two_requests_of_one_moment_pass(doorkeeper, clock):
    """A board's clock may be coarse, and a SuperNode has several threads."""
    assert {doorkeeper.judge(signed(clock.now)) for _ in range(5)} == {MAY_PASS}


def test_only_the_key_itself_signs_for_it(doorkeeper, clock):
    assert doorkeeper.judge(signed(clock.now, STRANGERS, claimed=KEY)).reason == "wrong signature"
    found = doorkeeper.judge(signed(clock.now, STRANGERS))
    assert found.status == REFUSED
    assert found.reason == f"unknown key {fingerprint(pem(STRANGERS))}"
    assert doorkeeper.judge(signed(clock.now)) == MAY_PASS


@pytest.mark.parametrize(
    ("late_s", "passes"), [(-5.1, False), (-4.9, True), (0, True), (304.9, True), (305.1, False)]
)
def test_a_clock_may_be_wrong_by_as_much_as_flower_lets_it(late_s, passes, doorkeeper, clock):
    found = doorkeeper.judge(signed(clock.now - timedelta(seconds=late_s)))
    assert (found == MAY_PASS) == passes
    assert passes or (found.status, found.reason[:13]) == (REFUSED, "its clock is ")


def test_the_zone_of_a_clock_does_not_matter(doorkeeper, clock):
    zone = timezone(timedelta(hours=-7))
    assert doorkeeper.judge(signed(clock.now.astimezone(zone))) == MAY_PASS
    assert doorkeeper.judge(signed(clock.now.replace(tzinfo=None))).reason == "unreadable signature"


def test_what_was_signed_before_the_gate_began_is_to_be_signed_again():
    """It may have passed before, and nobody here has seen it."""
    clock = Clock()
    doorkeeper = Doorkeeper(lambda _: True, clock, clock)
    clock.now += timedelta(seconds=10)
    assert doorkeeper.judge(signed(BEGAN - timedelta(seconds=1))).status == LATER
    assert doorkeeper.judge(signed(BEGAN + timedelta(seconds=1))) == MAY_PASS


def test_a_server_whose_clock_is_set_back_goes_on(clock):
    steady = Clock()
    doorkeeper = Doorkeeper(lambda _: True, clock, steady)
    steady.now += timedelta(seconds=60)
    clock.now -= timedelta(hours=1)
    assert doorkeeper.judge(signed(clock.now)) == MAY_PASS


def test_what_is_remembered_is_forgotten_when_it_is_refused_anyway(doorkeeper, clock):
    for _ in range(4):
        for _ in range(50):
            assert doorkeeper.judge(signed(clock.now)) == MAY_PASS
        clock.now += timedelta(seconds=AHEAD_S + BEHIND_S + 1)
    assert len(doorkeeper._passed) + len(doorkeeper._passed_before) <= 100


ANY_HEADER = st.one_of(st.text(), st.binary().map(lambda data: b64encode(data).decode()))


@given(ANY_HEADER, ANY_HEADER, ANY_HEADER)
@example(b64encode(pem(KEY)).decode(), "0001-01-01T00:00:00+23:59", "AA==")
@example(b64encode(pem(KEY)).decode(), "9999-12-31T23:59:59-23:59", "AA==")
@example(b64encode(pem(KEY)).decode(), "A" * 2000, "AA==")
def test_no_header_ends_the_doorkeeper(public_key, timestamp, signature):
    doorkeeper = Doorkeeper(lambda _: True, BEGAN.timestamp, time.monotonic)
    for moment in (timestamp, BEGAN.isoformat()):
        headers = {PUBLIC_KEY: public_key, TIMESTAMP: moment, SIGNATURE: signature}
        found = doorkeeper.judge(headers)
        assert found.status == REFUSED
        assert found.reason.isascii()
        assert found.reason.isprintable()


@given(st.binary(max_size=300))
@example(
    ed25519.Ed25519PrivateKey.generate()
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
)
def test_whatever_is_no_key_has_a_fingerprint_that_can_be_printed(data):
    assert fingerprint(data).isascii()
    assert fingerprint(data).isprintable()


# --- which keys are registered -------------------------------------------------------------------


@pytest.fixture
def superlink(tmp_path):
    """The state of a real SuperLink, whose database is `tmp_path / "superlink.db"`."""
    from flwr.superlink.config_loader import (
        get_federation_manager,
        get_objectstore_linkstate_factories,
    )

    database = str(tmp_path / "superlink.db")
    return get_objectstore_linkstate_factories(database, get_federation_manager())[1].state()


def test_a_key_counts_from_when_it_is_registered_until_it_is_taken_out(superlink, tmp_path):
    registered = RegisteredKeys(tmp_path / "superlink.db")
    assert not registered.knows(pem(KEY))
    node = superlink.create_node("owner", "owner", pem(KEY), 30)
    assert registered.knows(pem(KEY))
    assert superlink.activate_node(node, 30)
    assert registered.knows(pem(KEY))
    assert not registered.knows(pem(STRANGERS))
    superlink.delete_node("owner", node)
    assert not registered.knows(pem(KEY))
    registered.close()


def test_the_database_may_be_moved_away_and_another_come(superlink, tmp_path):
    database = tmp_path / "superlink.db"
    registered = RegisteredKeys(database)
    superlink.create_node("owner", "owner", pem(KEY), 30)
    assert registered.knows(pem(KEY))
    doorkeeper = Doorkeeper(registered.knows, Clock(), time.monotonic)
    headers = signed(BEGAN)
    for path in tmp_path.glob("superlink.db*"):
        path.unlink()
    assert decide(doorkeeper, headers).status == LATER
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE other (a)")
    assert decide(doorkeeper, headers).status == LATER
    database.unlink()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE node (public_key BLOB, status TEXT)")
        connection.execute("INSERT INTO node VALUES (?, 'online')", (pem(STRANGERS),))
        connection.commit()
    assert not registered.knows(pem(KEY))
    assert registered.knows(pem(STRANGERS))
    registered.close()


def test_the_gate_cannot_write_to_the_database(superlink, tmp_path):
    database = StateDatabase(tmp_path / "superlink.db")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        database.ask("DELETE FROM node")
    database.close()


# --- logs ----------------------------------------------------------------------------------------


def test_a_log_that_grew_too_large_takes_the_place_of_the_one_before(tmp_path):
    log = tmp_path / "gate.log"
    assert not bound_log(log, 10)
    for text in ("first" * 3, "second" * 3):
        log.write_text(text)
        assert bound_log(log, 10)
        assert not log.exists()
        assert (tmp_path / "gate.log.1").read_text() == text
    log.write_text(secrets.token_hex(5))
    assert not bound_log(log, 10)
    assert log.exists()
