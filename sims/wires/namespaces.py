"""A server and its nodes as separate hosts: Linux network namespaces with a wire to each node."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fed_ist.errors import InputError
from fed_ist.launch.processes import exit_at_sigterm

MTU_BYTES = 1500
ETHERNET_BYTES = 14  # a veth counts the header of each frame; a modem's quota does not


@dataclass(frozen=True)
class Wires:
    """The names of the namespaces, and the wires between them.

    Node i reaches the server at `address(i)`, and its wire is `interface(i)` on the server's side.
    header_bytes: what interfaces count of each packet in addition to the IP packet.
    """

    server: str
    nodes: tuple[str, ...]
    header_bytes: int

    @staticmethod
    def address(node: int, side: int = 1) -> str:
        """The address of one end of a node's wire. side: 1 is the server's, 2 the node's."""
        return f"10.77.{node}.{side}"

    @staticmethod
    def interface(node: int) -> str:
        """The name of a node's wire, on both sides."""
        return f"wire{node}"


@dataclass(frozen=True)
class Counters:
    """What has crossed a wire: bytes of IP packets, and packets, to the node and from it."""

    bytes_down: int
    packets_down: int
    bytes_up: int
    packets_up: int

    def since(self, before: "Counters") -> "Counters":
        """What has crossed the wire since `before`."""
        return Counters(
            self.bytes_down - before.bytes_down,
            self.packets_down - before.packets_down,
            self.bytes_up - before.bytes_up,
            self.packets_up - before.packets_up,
        )


def read_counters(pid: int, wires: Wires) -> list[Counters]:
    """The counters of all wires now. pid: a process in the server's namespace, which sees them."""
    fields: dict[str, list[int]] = {}
    for line in Path(f"/proc/{pid}/net/dev").read_text(encoding="utf-8").splitlines()[2:]:
        name, _, numbers = line.partition(":")
        fields[name.strip()] = [int(number) for number in numbers.split()]
    found = []
    for node in range(len(wires.nodes)):
        up_bytes, up_packets, down_bytes, down_packets = (
            fields[wires.interface(node)][i] for i in (0, 1, 8, 9)
        )
        found.append(
            Counters(
                down_bytes - wires.header_bytes * down_packets,
                down_packets,
                up_bytes - wires.header_bytes * up_packets,
                up_packets,
            )
        )
    return found


def require_namespaces() -> None:
    """Raise `InputError` where network namespaces cannot be made."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise InputError("Measuring the wire needs Linux and root: it makes network namespaces.")
    for command, package in (("ip", "iproute2"), ("ethtool", "ethtool")):
        if shutil.which(command) is None:
            raise InputError(
                f"Measuring the wire needs '{command}': install the package {package}."
            )
    probe = f"fed-ist-{os.getpid()}-probe"
    try:
        _do("ip", "netns", "add", probe)
        _do("ip", "netns", "delete", probe)
    except InputError as reason:
        raise InputError(f"This machine allows no network namespaces: {reason}") from None


@contextmanager
def wired(n_nodes: int, *, tun: bool) -> Iterator[Wires]:
    """Namespaces of a server and its nodes, with a wire to each node; all are removed afterwards.

    They are removed after an interruption too. tun: whether the wires are left out, to be TUN
    devices (see `sims.wires.slow_wire`); otherwise they are Ethernet. Segmentation offload is off,
    so that packets are no larger than on a real link. Raises `InputError` where this is not
    possible.
    """
    require_namespaces()
    prefix = f"fed-ist-{os.getpid()}"
    wires = Wires(
        f"{prefix}-server",
        tuple(f"{prefix}-node{i}" for i in range(n_nodes)),
        0 if tun else ETHERNET_BYTES,
    )
    with exit_at_sigterm():
        try:
            for name in (wires.server, *wires.nodes):
                _do("ip", "netns", "add", name)
                for setting in ("all", "default"):  # otherwise IPv6 sends packets of its own
                    inside(name, "sysctl", "-qw", f"net.ipv6.conf.{setting}.disable_ipv6=1")
                _do("ip", "-n", name, "link", "set", "lo", "up")
            if not tun:
                for node in range(n_nodes):
                    _join(wires, node)
            yield wires
        finally:
            for name in (wires.server, *wires.nodes):
                subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _join(wires: Wires, node: int) -> None:
    name, here, there = wires.interface(node), wires.server, wires.nodes[node]
    _do("ip", "link", "add", name, "netns", here, "type", "veth", "peer", name, "netns", there)
    for namespace in (here, there):
        inside(namespace, "ethtool", "-K", name, "tso", "off", "gso", "off", "gro", "off")
    bring_up(wires, node)


def bring_up(wires: Wires, node: int) -> None:
    """Give both ends of a wire their addresses."""
    for side, namespace in ((1, wires.server), (2, wires.nodes[node])):
        name, address = wires.interface(node), wires.address(node, side)
        peer = wires.address(node, 3 - side)
        _do("ip", "-n", namespace, "address", "add", address, "peer", peer, "dev", name)
        _do("ip", "-n", namespace, "link", "set", name, "mtu", str(MTU_BYTES), "up")


def inside(namespace: str, *command: str) -> None:
    """Run a command in a namespace; raises `InputError` with its last words if it fails."""
    _do(*within(namespace, command))


def within(namespace: str, command: Sequence[str]) -> list[str]:
    """The command line that runs a command in a namespace."""
    return ["ip", "netns", "exec", namespace, *command]


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, errors="replace", check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise InputError(f"'{' '.join(command)}' failed: {said[-1] if said else 'no reason given'}")
