"""The gate's folders, sockets and ports, and how paths are written for nginx."""

from dataclasses import dataclass
from pathlib import Path

from fed_ist.errors import InputError

# Who counts as one client: an IPv4 address, or the /48 of an IPv6 address, which is the most that a
# provider gives one customer.
NETWORK = """\
    map $binary_remote_addr $fed_ist_network {
        "~(?s)^(?<fed_ist_site>.{6}).{10}$" $fed_ist_site;
        default $binary_remote_addr;
    }"""


@dataclass(frozen=True)
class Places:
    """The folders of the gate.

    runtime: for sockets. bodies: for the bodies of requests on their way, on a disk. Nobody else
    may enter these two. logs: for what was refused and what nginx complains of.
    """

    runtime: Path
    bodies: Path
    logs: Path

    @property
    def verifier(self) -> Path:
        """The socket of the verifier."""
        return self.runtime / "verifier.sock"

    @property
    def relay(self) -> Path:
        """The socket of the relay, for devices that keep one connection."""
        return self.runtime / "relay.sock"

    @property
    def inside(self) -> Path:
        """The socket at which nginx ends TLS."""
        return self.runtime / "inside.sock"

    @property
    def crowd(self) -> Path:
        """The same, for connections that come when there are too many."""
        return self.runtime / "crowd.sock"

    @property
    def way_to_crowd(self) -> Path:
        """The socket at which the connections of the crowd are counted."""
        return self.runtime / "way-to-crowd.sock"

    @property
    def log(self) -> Path:
        """The file that says which requests were refused, whose, and why."""
        return self.logs / "gate.log"

    @property
    def errors(self) -> Path:
        """The file of nginx's own errors."""
        return self.logs / "gate-errors.log"


@dataclass(frozen=True)
class Ports:
    """The gate's port, which devices reach, and the SuperLink's, which only this host reaches."""

    port: int
    superlink: int


def word(path: Path | str) -> str:
    """A path as a word of nginx's configuration; raises `InputError` if nginx cannot read it."""
    text = str(path)
    if "$" in text or not text.isprintable():
        raise InputError(f"nginx cannot read {text!r}: move it to a path without '$' or the like.")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
