"""What a device can tell of its server: the files it was given, the way there, and the clocks."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from cryptography import x509

from fed_ist.addresses import split_address
from fed_ist.credentials import RENEW_DAYS, Validity, read_certificate, validity
from fed_ist.diagnosis import FAILURE, OK, WARNING, Diagnosis
from fed_ist.errors import InputError
from fed_ist.gate import VERSIONS_HEADER, versions
from fed_ist.node_keys import require_private

TIMEOUT_S = 20.0
# A SuperLink takes what a node signed up to 5 s ahead of its own clock, or 305 s behind it (flwr
# 1.42, superlink/routers/fleet/node_auth.py); its Date header is cut to whole seconds.
AHEAD_S, BEHIND_S = 5.0, 305.0
CLOSE_S = 2.0
# OpenSSL's X509_V_ERR_...
NOT_YET_VALID, EXPIRED, OTHER_NAME, OTHER_ADDRESS = 9, 10, 62, 64
SET_CLOCK = "Set the clock: sudo timedatectl set-ntp true"
RENEW = "renew it on the server with `fed-ist keys`, and restart the server"


def check_key(path: Path) -> Diagnosis:
    """Whether this is a node's private key that nobody else may read."""
    try:
        require_private(path)
    except InputError as error:
        return Diagnosis("key", FAILURE, str(error))
    return Diagnosis("key", OK, f"'{path}' is a private key for its owner alone")


def check_authority(path: Path) -> Diagnosis:
    """Whether the authority's certificate can be read, and holds today."""
    try:
        return _judge("authority", validity(read_certificate(path)), "Bring a new ca.crt here")
    except InputError as error:
        return Diagnosis("authority", FAILURE, f"{error} Copy ca.crt from the server's keys.")


def check_server(address: str, authority: Path | None) -> Iterator[Diagnosis]:
    """The way to the server, step by step, as far as it goes.

    authority: whose certificates are trusted; the system's if None, as with Flower.
    """
    try:
        host, port = split_address(address)
        context = ssl.create_default_context(cafile=authority)
    except InputError as error:
        yield Diagnosis("address", FAILURE, str(error))
        return
    except (OSError, ssl.SSLError):
        return  # `check_authority` has said what is wrong with it
    reached = _check_way(host, port)
    yield reached
    if reached.level == FAILURE:
        return
    trusted = _check_tls(host, port, context)
    yield trusted
    if trusted.level != FAILURE:
        yield from _check_http(host, port, context)


def _check_way(host: str, port: int) -> Diagnosis:
    """Name and port."""
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
    """Whether the server has a certificate for this name, of this authority, that holds today."""
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
    """Why a certificate was refused; it is looked at without trust for that."""
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


def _check_http(host: str, port: int, context: ssl.SSLContext) -> Iterator[Diagnosis]:
    """Whether a SuperLink is there, and what its clock says."""
    connection = HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/health")
            response = connection.getresponse()
            response.read()
            now = datetime.now(UTC)
        except (OSError, HTTPException) as error:
            text = f"{host}:{port} does not answer over HTTP ({error}). Check the server's log."
            yield Diagnosis("superlink", FAILURE, text)
            return
    if response.status != 200:
        text = (
            f"{host}:{port} answers {response.status} where a SuperLink says 200. Check the port, "
            "and on the server: systemctl status fed-ist-superlink"
        )
        yield Diagnosis("superlink", FAILURE, text)
        return
    yield Diagnosis("superlink", OK, f"a SuperLink is at {host}:{port}")
    if there := response.getheader(VERSIONS_HEADER):
        yield _judge_versions(there)
    if date := response.getheader("Date"):
        yield judge_clock((now - parsedate_to_datetime(date)).total_seconds())


def _judge_versions(there: str) -> Diagnosis:
    if there == versions():
        return Diagnosis("versions", OK, "the server had the same when its gate was made")
    text = f"the server had {there} when its gate was made. Install the same here, or make it anew."
    return Diagnosis("versions", WARNING, text)


def judge_clock(ahead_s: float) -> Diagnosis:
    """ahead_s: of this device's clock before the server's, below 0 where it is behind."""
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
