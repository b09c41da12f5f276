"""Slow wires between namespaces: packets are held back, delayed and lost as on a given link.

The kernel's netem would do this, but not every kernel has it. So each end of a wire is a TUN
device, and a process passes IP packets from one to the other: TCP sees rate, latency and loss as on
a link.
"""

import ctypes
import fcntl
import heapq
import json
import os
import random
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fed_ist.errors import InputError
from fed_ist.traffic.links import Link
from sims.wires.namespaces import MTU_BYTES, Wires, bring_up

# The most bytes that wait at each end, as in a modem: some seconds on a slow link.
QUEUE_BYTES = 128_000
WAYS = ("down", "up")
# include/uapi/linux/if_tun.h and sched.h
TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000


@dataclass
class Lane:
    """One direction of a link. free_at_s: when the last packet that was taken has left."""

    bits_per_s: float
    latency_s: float
    loss: float
    draw: random.Random = field(default_factory=random.Random)
    free_at_s: float = 0.0

    def take(self, now_s: float, n_bytes: int) -> float | None:
        """When a packet that comes now arrives at the other end; None where it is lost."""
        waiting_s = max(0.0, self.free_at_s - now_s)
        if waiting_s * self.bits_per_s / 8 + n_bytes > QUEUE_BYTES:
            return None
        self.free_at_s = now_s + waiting_s + 8 * n_bytes / self.bits_per_s
        if self.draw.random() < self.loss:
            return None
        return self.free_at_s + self.latency_s


@contextmanager
def slow(wires: Wires, link: Link, spoiled: Sequence[str] = WAYS) -> Iterator[None]:
    """Join the namespaces of `wires` by wires like `link`, during the block.

    spoiled: on which of "down" and "up" there are latency and loss. Raises `InputError` where TUN
    devices cannot be made.
    """
    if not Path("/dev/net/tun").exists():
        raise InputError("Shaping a link needs /dev/net/tun: load the kernel's module 'tun'.")
    request = {
        "names": [wires.interface(node) for node in range(len(wires.nodes))],
        "server": wires.server,
        "nodes": wires.nodes,
        "down_bps": link.down_bps,
        "up_bps": link.up_bps,
        "latency_s": {way: link.latency_s * (way in spoiled) for way in WAYS},
        "loss": {way: link.loss * (way in spoiled) for way in WAYS},
    }
    command = [sys.executable, "-m", "sims.wires.slow_wire", json.dumps(request)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise InputError("The TUN devices of a slow link could not be made: see above.")
            for node in range(len(wires.nodes)):
                bring_up(wires, node)
            yield
        finally:
            process.kill()


def _open_tun(namespace: str, name: str) -> int:
    """The file of a new TUN device in a namespace, in which this process stays from then on."""
    with Path("/run/netns", namespace).open(encoding="utf-8") as place:
        if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"no entry into {namespace}")
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return file


def main() -> None:
    """Pass packets on until killed."""
    request = json.loads(sys.argv[1])
    watch = selectors.DefaultSelector()
    latency_s, loss = request["latency_s"], request["loss"]
    for name, namespace in zip(request["names"], request["nodes"], strict=True):
        server, node = _open_tun(request["server"], name), _open_tun(namespace, name)
        down, up = (Lane(request[f"{way}_bps"], latency_s[way], loss[way]) for way in WAYS)
        watch.register(server, selectors.EVENT_READ, (node, down))
        watch.register(node, selectors.EVENT_READ, (server, up))
    print("ready", flush=True)
    under_way: list[tuple[float, int, int, bytes]] = []
    n_taken = 0
    while True:
        wait_s = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for key, _ in watch.select(wait_s):
            other, lane = key.data
            packet = os.read(key.fd, MTU_BYTES)
            arrives_s = lane.take(time.monotonic(), len(packet))
            if arrives_s is not None:
                n_taken += 1
                heapq.heappush(under_way, (arrives_s, n_taken, other, packet))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, other, packet = heapq.heappop(under_way)
            os.write(other, packet)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
