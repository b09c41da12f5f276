"""Counts the TCP packets on a node's wire by what they are, with a raw socket in its namespace."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fed_ist.words import table
from sims.wires.namespaces import Wires, within

# It prints one JSON object at the end of its input: (way, kind) -> [packets, bytes of IP].
SNIFFER = """
import json, select, socket, struct, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(0x0003))
wire.bind((sys.argv[1], 0))
print(flush=True)
counts = {}
while True:
    ready = select.select([wire, sys.stdin], [], [])[0]
    if sys.stdin in ready:
        break
    frame, (_, _, direction, *_) = wire.recvfrom(2048)
    if frame[12:14] != b"\\x08\\x00":
        continue
    packet = frame[14:]
    if packet[9] != socket.IPPROTO_TCP:
        continue
    total = struct.unpack("!H", packet[2:4])[0]
    head = 4 * (packet[0] & 15)
    flags, carried = packet[head + 13], total - head - 4 * (packet[head + 12] >> 4)
    kind = "carries data" if carried else "acknowledges"
    if flags & 7:
        kind = "opens or ends a connection"
    way = "up" if direction == socket.PACKET_OUTGOING else "down"
    entry = counts.setdefault(way + ", " + kind, [0, 0])
    entry[0] += 1
    entry[1] += total
print(json.dumps(counts))
"""


@dataclass
class Sizes:
    """By way and kind: how many packets, and their bytes of IP."""

    counts: dict[str, list[int]] = field(default_factory=dict)

    def render(self) -> str:
        """The counts as a table in Markdown."""
        rows = [
            (kind, f"{packets:,}", f"{n_bytes:,}")
            for kind, (packets, n_bytes) in sorted(self.counts.items())
        ]
        return table(("packets", "how many", "bytes of IP"), rows) if rows else "none"


@contextmanager
def sniffing(wires: Wires, node: int) -> Iterator[Sizes]:
    """Sizes that are there after the block, of the packets that crossed a node's wire in it."""
    found = Sizes()
    command = [sys.executable, "-c", SNIFFER, wires.interface(node)]
    with subprocess.Popen(
        within(wires.nodes[node], command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it listens
        try:
            yield found
        finally:
            told, _ = process.communicate("end\n")
    found.counts |= json.loads(told)
