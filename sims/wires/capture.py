"""Captures the packets on the nodes' wires with tshark, as a check of the counters."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sims.wires.namespaces import Wires, within

HEADERS_BYTES = 96  # kept of each packet: enough for Ethernet, IP and TCP
START_S = 1.5


@dataclass(frozen=True)
class Capture:
    """A capture with a file for each node, `FILE.0`, `FILE.1` ...; none where tshark is missing."""

    wires: Wires
    file: Path

    def path(self, node: int) -> Path:
        """The file of a node."""
        return self.file.with_name(f"{self.file.name}.{node}")

    def describe(self) -> str:
        """A line for each node: the IP bytes, packets and connections in its capture."""
        if shutil.which("tshark") is None:
            return "tshark is not installed: nothing but the counters was measured"
        return "\n".join(self._describe(node) for node in range(len(self.wires.nodes)))

    def _describe(self, node: int) -> str:
        fields = [
            "ip.src",
            "ip.len",
            "tcp.flags.syn",
            "tcp.flags.ack",
            "tcp.analysis.retransmission",
        ]
        command = ["tshark", "-r", str(self.path(node)), "-Y", "ip", "-T", "fields"]
        for name in fields:
            command += ["-e", name]
        done = subprocess.run(command, capture_output=True, errors="replace", check=False)
        packets = [line.split("\t") for line in done.stdout.splitlines()]
        server = self.wires.address(node)
        down = sum(int(packet[1]) for packet in packets if packet[0] == server)
        up = sum(int(packet[1]) for packet in packets if packet[0] != server)
        opened = sum(
            packet[2] in ("1", "True") and packet[3] in ("0", "False") for packet in packets
        )
        again = sum(packet[4] != "" for packet in packets)
        return (
            f"capture, node {node}: {down:,} B down and {up:,} up in {len(packets):,} packets, "
            f"polls included; {opened} connections opened, {again} packets sent again"
        )


@contextmanager
def capturing(capture: Capture) -> Iterator[None]:
    """Capture packets during the block, if tshark is installed."""
    processes = []
    if shutil.which("tshark"):
        for node, namespace in enumerate(capture.wires.nodes):
            name = capture.wires.interface(node)
            command = ["tshark", "-q", "-i", name, "-s", str(HEADERS_BYTES)]
            command += ["-w", str(capture.path(node))]
            processes.append(
                subprocess.Popen(
                    within(namespace, command),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
        time.sleep(START_S)
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.wait()
