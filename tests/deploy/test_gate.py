"""The gate with the real nginx: who gets a word through to the SuperLink, and who does not.

A stand-in takes the SuperLink's place here, and writes down what reaches it.
"""

import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import psutil
import pytest
from conftest import HANG_S, ROOT
from test_node_signatures import pem

from fed_ist.deploy.diagnosis import FAILURE, OK
from fed_ist.deploy.gate_places import Places, Ports
from fed_ist.deploy.gate_requests import OBJECTS_EACH, VERSIONS_HEADER, versions
from fed_ist.deploy.gatekeeper import find_nginx, keep_gate
from fed_ist.deploy.nginx import CONNECTIONS_EACH
from fed_ist.deploy.node_keys import write_node_key
from fed_ist.deploy.node_signatures import PUBLIC_KEY, SIGNATURE, TIMESTAMP, fingerprint, sign
from fed_ist.deploy.server_checks import check_server
from fed_ist.errors import InputError
from sims.benchmarks.gate import ATTACKED, federation, measure
from sims.benchmarks.gated import Gated, gated

try:
    find_nginx()
    LACKING = ""
except InputError as lacking:
    LACKING = str(lacking)
needs_nginx = pytest.mark.skipif(bool(LACKING), reason=LACKING)
PULL, PUSH = "/v1/fleet/pull-messages", "/v1/fleet/push-object"
TREE, ACTIVATE = "/v1/fleet/push-messages", "/v1/fleet/activate-node"


@dataclass
class StandIn:
    """In a SuperLink's place: what has reached it, as (method, path, headers, bytes of body)."""

    reached: list[tuple[str, str, dict[str, str], int]] = field(default_factory=list)

    def serve(self, hosts: Gated, stack: ExitStack) -> None:
        reached = self.reached

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                reached.append((self.command, self.path, headers, len(body)))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def do_GET(self):
                self.do_POST()

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", hosts.superlink_port), Answer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(hosts.certificates.server, hosts.certificates.key)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        for end in (server.server_close, thread.join, server.shutdown):
            stack.callback(end)


@dataclass
class Gate:
    hosts: Gated
    superlink: StandIn

    def ask(self, path, *, method="POST", body=b"", source="127.0.0.1", **headers):
        """(status, headers, body) of an answer. headers: with _ for -."""
        with closing(self.hosts.connect(source)) as connection:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body=body, headers=named)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def signed(self, name="north", **changes):
        headers = {
            key.replace("-", "_"): value for key, value in sign(self.hosts.key(name)).items()
        }
        return headers | changes

    def raw(self, data: bytes, wait_s: float = 60) -> bytes:
        """What is answered to these bytes until the connection is closed, or for `wait_s`."""
        context = ssl.create_default_context(cafile=self.hosts.certificates.authority)
        address = ("127.0.0.1", self.hosts.port)
        found = b""
        with (
            socket.create_connection(address, wait_s) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            secure.sendall(data)
            try:
                while piece := secure.recv(65536):
                    found += piece
            except (TimeoutError, ConnectionError):
                pass
        return found

    def logged(self, words: str) -> bool:
        return words in (self.hosts.logs / "gate.log").read_text()


def register(hosts: Gated, name: str) -> None:
    """As a SuperLink does it: a row of its database."""
    from flwr.superlink.config_loader import (
        get_federation_manager,
        get_objectstore_linkstate_factories,
    )

    write_node_key(hosts.keys, name)
    database = str(hosts.database)
    state = get_objectstore_linkstate_factories(database, get_federation_manager())[1].state()
    state.create_node("owner", "owner", pem(hosts.key(name)), 30)


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    if LACKING:
        pytest.skip(LACKING)
    with gated() as hosts, ExitStack() as stack:
        register(hosts, "north")
        write_node_key(hosts.keys, "stranger")
        superlink = StandIn()
        superlink.serve(hosts, stack)
        hosts.start_gate()
        yield Gate(hosts, superlink)


@pytest.fixture
def reached(gate):
    gate.superlink.reached.clear()
    return gate.superlink.reached


def test_what_a_registered_node_asks_reaches_the_superlink_whole(gate, reached):
    for path, size in ((PULL, 10), (TREE, 1_000_000), (PUSH, 5_000_000)):
        headers = gate.signed()
        status, _, said = gate.ask(path, body=bytes(size), **headers, content_type="a/b")
        assert (status, said) == (200, b"ok")
        method, found, sent, n_bytes = reached[-1]
        assert (method, found, n_bytes) == ("POST", path, size)
        assert sent["content-type"] == "a/b"
        assert {sent[name] for name in (PUBLIC_KEY, TIMESTAMP, SIGNATURE)} == set(headers.values())


REFUSALS = {
    "orders": ("/v1/control/start-run", {}, 403),
    "orders of a node": ("/v1/control/list-nodes", "north", 403),
    "the runtime": ("/v1/runtime/acquire-task", "north", 403),
    "the documentation": ("/docs", "north", 403),
    "nothing": ("/", {}, 403),
    "what nginx asks": ("/verify", "north", 404),
    "a way back": ("/v1/fleet/../control/start-run", "north", 403),
    "a hidden way back": ("/v1/fleet/%2e%2e/control/start-run", "north", 403),
    "a hidden slash": ("/v1/fleet%2f..%2fcontrol%2fstart-run", "north", 403),
    "a path below": ("/v1/fleet/pull-messages/x", "north", 403),
    "a line that ends": ("/v1/fleet/pull-messages%0a", "north", 403),
    "other letters": ("/v1/fleet/Pull-Messages", "north", 403),
    "the check, unsigned": ("/check", {}, 405),
    "no signature": (PULL, {}, 401),
    "no signature of a large body": (PUSH, {}, 401),
    "an unknown key": (PULL, "stranger", 401),
    "an unknown key that begins": (ACTIVATE, "stranger", 412),
    "no key that begins": (ACTIVATE, {}, 412),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_nothing_else_reaches_the_superlink(name, gate, reached):
    path, who, expected = REFUSALS[name]
    headers = gate.signed(who) if who else {}
    status, answered, said = gate.ask(path, body=b"a" * 100, **headers)
    assert status == expected
    assert not reached
    assert answered["Server"] == "nginx"
    assert version("flwr") not in said.decode()


def test_a_header_that_was_seen_is_worth_nothing(gate, reached):
    headers = gate.signed()
    assert gate.ask(PULL, **headers)[0] == 200
    for path in (PULL, PUSH):
        assert gate.ask(path, body=b"a", **headers)[0] == 401
    assert len(reached) == 1
    assert gate.logged("signature used before")


def test_of_two_headers_that_verified_is_the_one_that_is_passed_on(gate, reached):
    """Else a node could name another's key beside its own."""
    mine, others = sign(gate.hosts.key("north")), sign(gate.hosts.key("stranger"))
    for first, second in ((mine, others), (others, mine)):
        lines = [f"{name}: {both[name]}" for name in mine for both in (first, second)]
        head = "\r\n".join([f"POST {PULL} HTTP/1.1", "Host: a", "Content-Length: 0", *lines])
        gate.raw(f"{head}\r\nConnection: close\r\n\r\n".encode())
    for *_, headers, _ in reached:
        assert headers[PUBLIC_KEY] == mine[PUBLIC_KEY]
        assert headers[SIGNATURE] == mine[SIGNATURE]


@pytest.mark.parametrize(("path", "most"), [(PULL, 16384), (TREE, 2**20), (PUSH, 64 * 2**20)])
def test_bodies_are_limited_by_path(path, most, gate, reached):
    """Even a registered node is refused before it has sent one."""
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {most + 1}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in sign(gate.hosts.key("north")).items())
    assert gate.raw(f"{head}\r\n".encode()).startswith(b"HTTP/1.1 413 ")
    assert not reached


def test_a_body_reaches_the_superlink_once_it_is_whole(gate, reached):
    head = f"POST {PUSH} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in sign(gate.hosts.key("north")).items())
    assert gate.raw(f"{head}\r\n".encode() + bytes(999), wait_s=1) == b""
    assert not reached


def test_one_key_has_so_many_objects_on_their_way_and_others_have_theirs(gate):
    register(gate.hosts, "east")
    context = ssl.create_default_context(cafile=gate.hosts.certificates.authority)
    head = f"POST {PUSH} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n"
    with ExitStack() as stack:
        for _ in range(OBJECTS_EACH):
            plain = socket.create_connection(("127.0.0.1", gate.hosts.port), 60)
            secure = stack.enter_context(context.wrap_socket(plain, server_hostname="127.0.0.1"))
            signed = sign(gate.hosts.key("north")).items()
            lines = "".join(f"{name}: {value}\r\n" for name, value in signed)
            secure.sendall(f"{head}{lines}Expect: 100-continue\r\n\r\n".encode())
            assert secure.recv(1000).startswith(b"HTTP/1.1 100 ")  # it waits for the body
        assert gate.ask(PUSH, **gate.signed())[0] == 503
        assert gate.ask(PULL, **gate.signed())[0] == 200
        assert gate.ask(PUSH, **gate.signed("east"))[0] == 200


def head_of(gate: Gate, *lines: str) -> bytes:
    signed = [f"{name}: {value}" for name, value in sign(gate.hosts.key("north")).items()]
    return "\r\n".join([f"POST {PULL} HTTP/1.1", "Host: a", *signed, *lines, "", ""]).encode()


ORDER = b"POST /v1/control/start-run HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
ODDITIES = {
    "chunks, of which nobody knows how many": (["Transfer-Encoding: chunked"], b"411"),
    "a length and chunks": (["Content-Length: 4", "Transfer-Encoding: chunked"], b"400"),
    "another coding": (["Transfer-Encoding: gzip"], b"501"),
    "a hidden coding": (["Transfer-Encoding : chunked"], b"400"),
    "two lengths": (["Content-Length: 4", "Content-Length: 100"], b"400"),
    "a length below nothing": (["Content-Length: -1"], b"400"),
    "a header of 9 kB": (["X: " + "a" * 9000], b"400"),
    "a thousand headers": ([f"X-{i}: {'a' * 20}" for i in range(1000)], b"400"),
}


@pytest.mark.parametrize("name", ODDITIES)
def test_odd_requests_are_refused_even_from_a_registered_node(name, gate, reached):
    lines, expected = ODDITIES[name]
    said = gate.raw(head_of(gate, *lines) + b"0\r\n\r\n" + ORDER)
    assert said.split()[1] == expected
    assert b"HTTP/1.1 200" not in said
    assert not reached


def test_an_order_within_a_body_is_a_body(gate, reached):
    lines = (f"Content-Length: {len(ORDER)}", "Connection: keep-alive, close", "Upgrade: h2c")
    assert gate.raw(head_of(gate, *lines) + ORDER).startswith(b"HTTP/1.1 200 ")
    assert [(path, n_bytes) for _, path, _, n_bytes in reached] == [(PULL, len(ORDER))]


def test_there_is_no_http_2_whose_streams_could_be_reset(gate, reached):
    context = ssl.create_default_context(cafile=gate.hosts.certificates.authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", gate.hosts.port), 60) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        assert secure.selected_alpn_protocol() != "h2"
    assert b"200" not in gate.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), wait_s=5)
    assert not reached


def test_a_key_counts_from_when_it_is_registered_until_it_is_taken_out(gate):
    write_node_key(gate.hosts.keys, "west")
    assert gate.ask(PULL, **gate.signed("west"))[0] == 401
    register(gate.hosts, "west")
    assert gate.ask(PULL, **gate.signed("west"))[0] == 200
    with closing(sqlite3.connect(gate.hosts.database)) as connection:
        connection.execute(
            "UPDATE node SET status = 'unregistered' WHERE public_key = ?",
            (pem(gate.hosts.key("west")),),
        )
        connection.commit()
    assert gate.ask(PULL, **gate.signed("west"))[0] == 401
    assert gate.ask(PULL, **gate.signed("north"))[0] == 200


def test_strangers_learn_that_there_is_a_gate_and_nothing_of_what_is_installed(gate, reached):
    status, headers, said = gate.ask("/health", method="GET")
    assert (status, said) == (200, b"")
    assert VERSIONS_HEADER not in headers
    assert not reached
    status, headers, _ = gate.ask("/check", method="GET", **gate.signed())
    assert (status, headers[VERSIONS_HEADER]) == (200, versions())
    assert reached[0][1] == "/health"


def test_the_doctor_says_whether_the_server_knows_the_key(gate):
    def examined(name: str) -> dict[str, str]:
        found = check_server(
            f"127.0.0.1:{gate.hosts.port}",
            gate.hosts.certificates.authority,
            gate.hosts.keys / name,
        )
        return {one.check: f"{one.level}: {one.text}" for one in found}

    known = examined("north")
    assert known["superlink"].startswith(f"{OK}: ")
    assert known["superlink"].endswith("and knows this key")
    assert known["versions"].startswith(OK)
    assert known["relay"].startswith(OK)
    unknown = examined("stranger")
    assert unknown["superlink"].startswith(f"{FAILURE}: the server does not know this key")
    assert "flwr supernode register keys/stranger.pub field" in unknown["superlink"]
    assert "versions" not in unknown


@needs_nginx
def test_with_a_flower_that_the_relay_was_not_tried_with_the_gate_goes_on_without_it(tmp_path):
    (tmp_path / "flwr-9.9.0.dist-info").mkdir()
    said = "Metadata-Version: 2.1\nName: flwr\nVersion: 9.9.0\n"
    (tmp_path / "flwr-9.9.0.dist-info" / "METADATA").write_text(said)
    with gated() as hosts, ExitStack() as stack:
        hosts.environment["PYTHONPATH"] = str(tmp_path)
        register(hosts, "north")
        superlink = StandIn()
        superlink.serve(hosts, stack)
        process = hosts.start_gate()
        hosts.wait_for("gate", "flwr 9.9.0 is installed, and the relay was tried with", process)
        gate = Gate(hosts, superlink)
        assert gate.ask(PULL, **gate.signed())[0] == 200
        where = f"127.0.0.1:{hosts.port}", hosts.certificates.authority, hosts.keys / "north"
        (found,) = (one for one in check_server(*where) if one.check == "relay")
        assert found.level == FAILURE
        assert process.poll() is None


def logged(gate, words):
    """The last line of the log that has these words; nginx writes it after it has answered."""
    while True:
        lines = (gate.hosts.logs / "gate.log").read_text().splitlines()
        if found := [line for line in lines if words in line]:
            return found[-1]
        time.sleep(0.1)


def test_the_log_says_who_was_refused_why_and_with_which_key(gate):
    assert gate.ask(PULL + "x" * 3000, **gate.signed("stranger"))[0] == 401
    mark = fingerprint(pem(gate.hosts.key("stranger")))
    line = logged(gate, " 127.0.0.1 401 POST ")
    assert line.endswith(f"unknown key {mark}")
    assert len(line) < 300
    assert gate.ask(PULL, method="A" * 3000)[0] == 405
    assert len(logged(gate, " 405 ")) < 300


def test_devices_come_in_from_an_address_that_has_too_many_connections(gate):
    """And from others. Counted as they are made: nothing has been said on any of them."""
    with ExitStack() as stack:
        opened = []
        for _ in range(CONNECTIONS_EACH + 100):
            address = ("127.0.0.9", 0)
            connection = socket.create_connection(("127.0.0.1", gate.hosts.port), 60, address)
            opened.append(stack.enter_context(connection))
        for source in ("127.0.0.8", "127.0.0.9"):
            assert gate.ask(PULL, **gate.signed(), source=source)[0] == 200
        assert opened[-1].recv(1) == b""  # in the crowd, who says nothing is soon closed
        opened[0].setblocking(False)
        with pytest.raises(BlockingIOError):  # with the others later
            opened[0].recv(1)


def test_hundreds_of_half_open_connections_keep_no_device_out(gate):
    """With an earlier gate, 420 from one address did."""
    with ExitStack() as stack:
        for i in range(600):
            address = (f"127.0.2.{1 + i % 5}", 0)
            connection = socket.create_connection(("127.0.0.1", gate.hosts.port), 60, address)
            stack.enter_context(connection).sendall(b"\x16\x03\x01")  # TLS begins like this
        assert gate.ask(PULL, **gate.signed())[0] == 200


def test_a_gate_whose_port_is_taken_says_so_in_a_sentence(gate, tmp_path):
    with pytest.raises(InputError, match="cannot be listened on: Address already in use"):
        ports, places = Ports(gate.hosts.port, 1), Places(tmp_path, tmp_path, tmp_path)
        keep_gate(gate.hosts.keys, ports, tmp_path / "db", places)


BUILT = "--with-http_ssl_module --with-http_auth_request_module --with-http_realip_module"


@pytest.mark.parametrize(
    ("built", "sentence"),
    [
        ("--with-http_ssl_module", "was built without its module http_auth_request"),
        (f"{BUILT} --with-stream=dynamic --modules-path=/absent", "'/absent/ngx_stream_module.so'"),
        (f"{BUILT} --with-stream --modules-path=/absent", ""),
    ],
)
def test_an_nginx_that_lacks_something_is_told_with_what_to_install(
    built, sentence, tmp_path, monkeypatch
):
    program = tmp_path / "nginx"
    program.write_text(f"#!/bin/sh\necho 'configure arguments: {built}' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    if not sentence:
        assert find_nginx() == (str(program), ())
        return
    with pytest.raises(InputError) as caught:
        find_nginx()
    assert sentence in str(caught.value)
    assert "sudo apt install nginx libnginx-mod-stream" in str(caught.value)


@needs_nginx
def test_nginx_ends_with_its_keeper_and_the_keeper_with_nginx():
    with gated() as hosts:
        for victim in ("keeper", "nginx"):
            keeper = hosts.start_gate()
            members = [psutil.Process(keeper.pid), *psutil.Process(keeper.pid).children()]
            (members[0] if victim == "keeper" else members[1]).terminate()
            _, alive = psutil.wait_procs(members, HANG_S)
            assert not alive
            keeper.wait()
        assert not (hosts.logs / "gate.log").read_text()


@needs_nginx
def test_without_a_superlink_devices_are_told_to_come_again():
    """Of what Flower's SuperNodes get, 502 to 504 do not end them."""
    with gated() as hosts:
        write_node_key(hosts.keys, "north")
        hosts.start_gate()
        alone = Gate(hosts, StandIn())
        assert alone.ask(PULL, **alone.signed())[0] == 503  # it has no database yet
        register(hosts, "north")
        assert alone.ask(PULL, **alone.signed())[0] == 502
        found = list(
            check_server(
                f"127.0.0.1:{hosts.port}", hosts.certificates.authority, hosts.keys / "north"
            )
        )
        (said,) = (one for one in found if one.check == "superlink")
        assert said.level == FAILURE
        assert "it finds no SuperLink (502)" in said.text


@needs_nginx
@pytest.mark.flower
@pytest.mark.slow
def test_strangers_by_the_thousand_neither_end_a_run_nor_fill_the_superlink(monkeypatch):
    """How long the run takes depends on the machine: `python -m sims.benchmarks.gate` reports
    it.
    """
    monkeypatch.chdir(ROOT)
    with federation() as (hosts, superlink, gate):
        found = measure(ATTACKED, hosts, superlink, gate, "attacked")
        assert found.deeds["most-standing"] > 768  # with so many an earlier gate was closed
        assert found.superlink_bytes < 50e6
        ledger = (hosts.folder / "results" / "attacked" / "ledger.csv").read_text()
        assert ",north," in ledger
        assert ",south," in ledger
