"""Checks of what a device has from its server, of the way to the server, and of the clocks."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage, HTTPSConnection
from pathlib import Path

from cryptography import x509

from fed_ist.deploy.certificates import RENEW_DAYS, Validity, read_certificate, validity
from fed_ist.deploy.diagnosis import FAILURE, OK, WARNING, Diagnosis
from fed_ist.deploy.gate_requests import CHECK, RELAY, VERSIONS_HEADER, versions
from fed_ist.deploy.node_keys import read_node_key, require_private
from fed_ist.deploy.node_signatures import AHEAD_S, BEHIND_S, sign
from fed_ist.errors import InputError
from fed_ist.launch.addresses import split_address

TIMEOUT_S = 20.0
UPGRADE_REQUIRED = 426  # what a relay says to a question that is no WebSocket's
CLOSE_S = 2.0  # the server's Date header is cut to whole seconds
# Codes of OpenSSL: X509_V_ERR_CERT_NOT_YET_VALID and the like
NOT_YET_VALID, EXPIRED, OTHER_NAME, OTHER_ADDRESS = 9, 10, 62, 64
SET_CLOCK = "Set the clock: sudo timedatectl set-ntp true"
STATUS = "systemctl status fed-ist-superlink"
RENEW = "renew it on the server with `fed-ist keys`, and restart the server"


def check_key(path: Path) -> Diagnosis:
    """Whether the file is a node's private key that nobody else may read."""
    try:
        require_private(path)
    except InputError as error:
        return Diagnosis("key", FAILURE, str(error))
    return Diagnosis("key", OK, f"'{path}' is a private key for its owner alone")


def check_authority(path: Path) -> Diagnosis:
    """Whether the authority's certificate can be read, and is valid today."""
    try:
        return _judge("authority", validity(read_certificate(path)), "Bring a new ca.crt here")
    except InputError as error:
        return Diagnosis("authority", FAILURE, f"{error} Copy ca.crt from the server's keys.")


def check_server(
    address: str, authority: Path | None, key: Path | None = None
) -> Iterator[Diagnosis]:
    """Check the way to the server, step by step, until one step fails.

    authority: the certificates that are trusted; None for those of the system, as with Flower. key:
    this device's; without it, a server only tells that it is there.
    """
    try:
        host, port = split_address(address)
        context = ssl.create_default_context(cafile=authority)
    except InputError as error:
        yield Diagnosis("address", FAILURE, str(error))
        return
    except (OSError, ssl.SSLError):
        return  # `check_authority` says what is wrong with it
    reached = _check_way(host, port)
    yield reached
    if reached.level == FAILURE:
        return
    trusted = _check_tls(host, port, context)
    yield trusted
    if trusted.level != FAILURE:
        yield from _check_http(host, port, context, key)


def _check_way(host: str, port: int) -> Diagnosis:
    """Whether the name has an address, and something answers at the port."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        text = f"'{host}' has no address ({error.strerror}). Check the name, and the network's DNS."
        return Diagnosis("connection", FAILURE, text)
    started = time.perf_counter()
    try:
        with socket.create_connection((host, port), TIMEOUT_S):
            took_ms = 1000 * (time.perf_counter() - started)
    except OSError as error:
        text = (
            f"{host} at {found[0][4][0]} does not answer on port {port} ({error.strerror or error})"
            ". Check that the server runs, and that no firewall is on the way."
        )
        return Diagnosis("connection", FAILURE, text)
    return Diagnosis("connection", OK, f"{host}:{port} answers after {took_ms:.0f} ms")


def _check_tls(host: str, port: int, context: ssl.SSLContext) -> Diagnosis:
    """Whether the server has a certificate of this authority, for this name, valid today."""
    try:
        try:
            presented = _presented(host, port, context)
        except ssl.SSLCertVerificationError as error:
            return Diagnosis("certificate", FAILURE, _explain(error, host, port))
    except OSError as error:
        text = (
            f"{host}:{port} does not speak TLS ({error}). Check the port, and that the server was "
            "not started with --insecure."
        )
        return Diagnosis("certificate", FAILURE, text)
    return _judge("certificate", validity(presented), f"The server's: {RENEW}")


def _presented(host: str, port: int, context: ssl.SSLContext) -> x509.Certificate:
    with (
        socket.create_connection((host, port), TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        data = secure.getpeercert(binary_form=True)
    assert data is not None
    return x509.load_der_x509_certificate(data)


def _explain(error: ssl.SSLCertVerificationError, host: str, port: int) -> str:
    """Why a certificate was refused; to find out, it is fetched again without being trusted."""
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    found = _presented(host, port, unchecked)
    if error.verify_code in (NOT_YET_VALID, EXPIRED):
        holds = validity(found)
        return (
            f"The server's certificate, or its authority's, does not hold now: it does from "
            f"{holds.start:%Y-%m-%d} to {holds.end:%Y-%m-%d}, and this clock says "
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC. If the clock is right, {RENEW}. {SET_CLOCK}"
        )
    if error.verify_code in (OTHER_NAME, OTHER_ADDRESS):
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        known = [str(name.value) for name in names]
        return (
            f"The server's certificate is not for '{host}', but for {', '.join(known)}. Use one of "
            f"these, or add it on the server: fed-ist keys --host {host}, and restart the server."
        )
    return (
        f"The server's certificate is not of this authority ({error.verify_message}). Copy ca.crt "
        "from the server's keys to this device."
    )


def _check_http(
    host: str, port: int, context: ssl.SSLContext, key: Path | None
) -> Iterator[Diagnosis]:
    """Whether a server answers, what its clock says, and whether it knows this device's key."""
    try:
        status, headers, ahead_s = _ask(host, port, context, "/health", {})
    except (OSError, HTTPException) as error:
        text = f"{host}:{port} does not answer over HTTP ({error}). Check the server's log."
        yield Diagnosis("superlink", FAILURE, text)
        return
    if status != 200:
        text = (
            f"{host}:{port} answers {status} where a SuperLink says 200. Check the port, and on "
            f"the server: {STATUS}"
        )
        yield Diagnosis("superlink", FAILURE, text)
        return
    clock = judge_clock(ahead_s) if ahead_s is not None else None
    # A signature with a wrong time is refused, whatever the key.
    asks = key is not None and not (clock and clock.level == FAILURE)
    yield from _check_key(host, port, context, key if asks else None, headers)
    if clock:
        yield clock


def _check_key(
    host: str,
    port: int,
    context: ssl.SSLContext,
    key: Path | None,
    headers: HTTPMessage,
) -> Iterator[Diagnosis]:
    """What the gate says to a device with a key. headers: of the answer to /health."""
    there = Diagnosis("superlink", OK, f"a server is at {host}:{port}")
    with contextlib.suppress(InputError):  # `check_key` says what is wrong with the key
        if key:
            try:
                status, answered, _ = _ask(host, port, context, CHECK, sign(read_node_key(key)))
            except (OSError, HTTPException) as error:
                text = f"{host}:{port} does not answer what is signed ({error})."
                yield Diagnosis("superlink", FAILURE, f"{text} Check the server's log.")
                return
            there = _judge_answer(status, host, port, key)
            headers = answered if status == 200 else headers
    yield there
    if found := headers.get(VERSIONS_HEADER):
        yield _judge_versions(found)
        if key:
            yield _check_relay(host, port, context, key)


def _check_relay(host: str, port: int, context: ssl.SSLContext, key: Path) -> Diagnosis:
    """Whether the gate has a relay for lasting connections; none is begun.

    A device may have one, which another by the same key would end.
    """
    try:
        status, _, _ = _ask(host, port, context, RELAY, sign(read_node_key(key)))
    except (OSError, HTTPException) as error:
        text = f"the gate does not answer at {RELAY} ({error}). Check the server's log."
        return Diagnosis("relay", FAILURE, text)
    if status == UPGRADE_REQUIRED:
        return Diagnosis("relay", OK, "the gate takes lasting connections of this key")
    text = (
        f"the gate takes no lasting connections ({status}), which `fed-ist supernode` needs. "
        "Install this fed-ist on the server, and restart its gate: sudo systemctl restart "
        "fed-ist-gate"
    )
    return Diagnosis("relay", FAILURE, text)


def _judge_answer(status: int, host: str, port: int, key: Path) -> Diagnosis:
    """What the status of an answer to CHECK means."""
    if status == 200:
        text = f"a SuperLink is at {host}:{port}, and knows this key"
        return Diagnosis("superlink", OK, text)
    if status == 401:
        text = (
            "the server does not know this key. On the server: flwr supernode register "
            f"keys/{key.name}.pub field"
        )
        return Diagnosis("superlink", FAILURE, text)
    if status >= 500:
        text = (
            f"a gate is at {host}:{port}, but it finds no SuperLink ({status}). On the server: "
            f"{STATUS}"
        )
        return Diagnosis("superlink", FAILURE, text)
    # Without a gate, or with one of an earlier fed-ist, this cannot be found out.
    return Diagnosis("superlink", OK, f"a SuperLink is at {host}:{port}")


def _ask(
    host: str, port: int, context: ssl.SSLContext, path: str, headers: Mapping[str, str]
) -> tuple[int, HTTPMessage, float | None]:
    """(status, headers, seconds by which this clock is ahead of the server's, if known)."""
    connection = HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        response.read()
        now = datetime.now(UTC)
    date = response.getheader("Date")
    ahead_s = (now - parsedate_to_datetime(date)).total_seconds() if date else None
    return response.status, response.headers, ahead_s


def _judge_versions(there: str) -> Diagnosis:
    if there == versions():
        return Diagnosis("versions", OK, "the server had the same when its gate was started")
    text = (
        f"the server had {there} when its gate was started. Install the same here, or restart it."
    )
    return Diagnosis("versions", WARNING, text)


def judge_clock(ahead_s: float) -> Diagnosis:
    """Whether this device's clock is near enough to the server's.

    ahead_s: how many seconds it is ahead of the server's; below 0 where it is behind.
    """
    how = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the server's clock"
    if not -BEHIND_S < ahead_s < AHEAD_S:
        text = f"{how}: the server refuses what this device signs. {SET_CLOCK}"
        return Diagnosis("clock", FAILURE, text)
    if abs(ahead_s) > CLOSE_S:
        text = f"{how}; from {AHEAD_S:.0f} s ahead or {BEHIND_S:.0f} s behind on it is refused. "
        return Diagnosis("clock", WARNING, text + SET_CLOCK)
    return Diagnosis("clock", OK, how)


def _judge(check: str, holds: Validity, what_to_do: str) -> Diagnosis:
    if holds.start > datetime.now(UTC):
        text = f"it holds from {holds.start:%Y-%m-%d} on, and this clock says it is not yet then. "
        return Diagnosis(check, FAILURE, text + SET_CLOCK)
    days = holds.days_left()
    if days < 0:
        text = f"it ended on {holds.end:%Y-%m-%d}. If this clock is right: {what_to_do}."
        return Diagnosis(check, FAILURE, text)
    text = f"it holds until {holds.end:%Y-%m-%d}, {days:.0f} days"
    if days < RENEW_DAYS:
        return Diagnosis(check, WARNING, f"{text}. {what_to_do}.")
    return Diagnosis(check, OK, text)
