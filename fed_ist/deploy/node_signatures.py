"""Judges by the signature in a request's headers whether a registered node sends it.

Flower 1.42 has a node sign the time, in three headers of each request (supernode/
node_auth_http_interceptor.py); it signs nothing of the request itself. So the headers tell who
asks, before anything that follows them is taken.
"""

import binascii
import hashlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

PUBLIC_KEY, TIMESTAMP, SIGNATURE = "flwr-public-key", "flwr-timestamp", "flwr-signature"
# A SuperLink accepts times from 5 s ahead of its own clock to 305 s behind it (flwr 1.42,
# superlink/routers/fleet/node_auth.py).
AHEAD_S, BEHIND_S = 5.0, 305.0
# The longest header: three times as long as a key on P-521.
MAX_CHARACTERS = 1024
REFUSED, LATER = 401, 503  # SuperNodes end after the first, and ask again after the second


@dataclass(frozen=True)
class Verdict:
    """Whether a request may pass.

    status: of HTTP; 204 if it may. reason: why not, in characters that a header may have.
    """

    status: int
    reason: str = ""


MAY_PASS = Verdict(204)


@dataclass
class Doorkeeper:
    """Judges the headers of requests, and lets each signature pass once.

    knows: whether a public key, in PEM, is registered. clock: seconds since 1970. steady: seconds
    of a clock that nobody sets. Signatures are remembered for as long as their time is accepted.
    Requests that were signed before this doorkeeper began must be signed again, as it does not know
    whether they have passed already.
    """

    knows: Callable[[bytes], bool]
    clock: Callable[[], float]
    steady: Callable[[], float]
    began: float = field(init=False)
    _passed: set[int] = field(default_factory=set)
    _passed_before: set[int] = field(default_factory=set)
    _turned: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self._turned = self.steady()

    def judge(self, headers: Mapping[str, str]) -> Verdict:
        """Whether a request with these headers may pass; names of headers are in lower case."""
        values = [headers.get(name, "") for name in (PUBLIC_KEY, TIMESTAMP, SIGNATURE)]
        if not all(0 < len(value) <= MAX_CHARACTERS for value in values):
            return Verdict(REFUSED, "no signature")
        try:
            public_key = b64decode(values[0], validate=True)
            signature = b64decode(values[2], validate=True)
            message = values[1].encode("ascii")
            signed_at = datetime.fromisoformat(values[1])
            age_s = self.clock() - _seconds(signed_at)
        except (ValueError, OverflowError, binascii.Error):
            return Verdict(REFUSED, "unreadable signature")
        if not -AHEAD_S < age_s < BEHIND_S:
            how = "behind" if age_s > 0 else "ahead"
            return Verdict(REFUSED, f"its clock is {abs(age_s):.0f} s {how}")
        # An unknown key ends here, before the costly check of its signature.
        if not self.knows(public_key):
            return Verdict(REFUSED, f"unknown key {fingerprint(public_key)}")
        found = _verified(public_key, message, signature)
        if found is None:
            return Verdict(REFUSED, "wrong signature")
        if self._has_passed(hash((public_key, found))):
            return Verdict(REFUSED, "signature used before")
        if age_s > self.steady() - self.began:
            return Verdict(LATER, "signed before the gate was there")
        return MAY_PASS

    def _has_passed(self, mark: int) -> bool:
        """Whether a signature has passed before; remembers it while its time is accepted."""
        if self.steady() - self._turned > AHEAD_S + BEHIND_S:
            self._passed, self._passed_before = set(), self._passed
            self._turned = self.steady()
        if mark in self._passed or mark in self._passed_before:
            return True
        self._passed.add(mark)
        return False


def sign(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """The headers with which a node's request passes, once and now."""
    timestamp = datetime.now(UTC).isoformat()
    signature = key.sign(timestamp.encode("ascii"), ec.ECDSA(hashes.SHA256()))
    public_key = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {
        PUBLIC_KEY: b64encode(public_key).decode("ascii"),
        TIMESTAMP: timestamp,
        SIGNATURE: b64encode(signature).decode("ascii"),
    }


def fingerprint(public_key: bytes) -> str:
    """A key in PEM as `ssh-keygen -l -f NAME.pub` prints it; "(none)" where it is no key."""
    try:
        key = serialization.load_pem_public_key(public_key)
        line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "(none)"
    digest = hashlib.sha256(b64decode(line.split()[1])).digest()
    return "SHA256:" + b64encode(digest).decode("ascii").rstrip("=")


def _seconds(moment: datetime) -> float:
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment.timestamp()


def _verified(public_key: bytes, message: bytes, signature: bytes) -> int | None:
    """The first number of a valid ECDSA signature of the message; None where it is not valid.

    It tells whether a signature was used before: anybody can change the second number so that the
    signature is valid still.
    """
    try:
        _loaded(public_key).verify(signature, message, ec.ECDSA(hashes.SHA256()))
        return decode_dss_signature(signature)[0]
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return None


@lru_cache(maxsize=1024)
def _loaded(public_key: bytes) -> ec.EllipticCurvePublicKey:
    """A registered key; raises `ValueError` for a key that Flower could not use either."""
    key = serialization.load_pem_public_key(public_key)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("a key on no curve")
    return key
