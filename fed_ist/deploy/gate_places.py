"""Where the gate is: folders, sockets and ports, and how nginx is told of them."""

from dataclasses import dataclass
from pathlib import Path

from fed_ist.errors import InputError

# An IPv4 address, or the /48 of an IPv6 address, which is what a customer gets at most.
NETWORK = """\
    map $binary_remote_addr $fed_ist_network {
        "~(?s)^(?<fed_ist_site>.{6}).{10}$" $fed_ist_site;
        default $binary_remote_addr;
    }"""


@dataclass(frozen=True)
class Places:
    """Where the gate keeps things. runtime: for sockets. bodies: for what is on its way, on
    a disk. Nobody else may enter these two.
    """

    runtime: Path
    bodies: Path
    logs: Path

    @property
    def verifier(self) -> Path:
        """The socket of the verifier."""
        return self.runtime / "verifier.sock"

    @property
    def inside(self) -> Path:
        """The socket behind which nginx ends TLS."""
        return self.runtime / "inside.sock"

    @property
    def crowd(self) -> Path:
        """The same, for those who come when there are too many."""
        return self.runtime / "crowd.sock"

    @property
    def way_to_crowd(self) -> Path:
        """Where these are counted."""
        return self.runtime / "way-to-crowd.sock"

    @property
    def log(self) -> Path:
        """What was refused, to whom and why."""
        return self.logs / "gate.log"

    @property
    def errors(self) -> Path:
        """What nginx complains of."""
        return self.logs / "gate-errors.log"


@dataclass(frozen=True)
class Ports:
    """port: where devices reach the server. superlink: on this host, which it does not leave."""

    port: int
    superlink: int


def word(path: Path | str) -> str:
    """A path as nginx reads it; raises `InputError` for one that it cannot."""
    text = str(path)
    if "$" in text or not text.isprintable():
        raise InputError(f"nginx cannot read {text!r}: move it to a path without '$' or the like.")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
