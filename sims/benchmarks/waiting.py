"""How many devices a server can keep waiting: `python -m sims.benchmarks.waiting OUT.md [N ...]`.

A SuperLink and a gate run on this host with keys and TLS. N devices keep a connection each, as
`fed-ist supernode` does, and wait; processor seconds are those of the server's processes.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.superlink.config_loader import (
    get_federation_manager,
    get_objectstore_linkstate_factories,
)

from fed_ist.launch.processes import exit_at_sigterm
from fed_ist.relay.line import SIGN_EACH_S
from fed_ist.words import table
from sims.benchmarks.gated import Gated, Process, gated
from sims.benchmarks.process_samples import family
from sims.endings import exit_code

DEFAULT = (500, 2000)
SETTLE_S = 20.0


@dataclass(frozen=True)
class Found:
    """What N waiting devices took. cores: of each part of the server, over `seconds`."""

    n_devices: int
    seconds: float
    cores: dict[str, float]
    relay_bytes: int
    counts: dict[str, int]


def register(hosts: Gated, n_devices: int) -> Path:
    """Register keys as the SuperLink does, in its database; returns a file with all of them."""
    factories = get_objectstore_linkstate_factories(str(hosts.database), get_federation_manager())
    state = factories[1].state()
    blocks = []
    for _ in range(n_devices):
        key = ec.generate_private_key(ec.SECP384R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        state.create_node("owner", "owner", public, 30)
        blocks.append(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    path = hosts.folder / f"keys-{n_devices}.pem"
    path.write_bytes(b"\n".join(blocks))
    return path


def parts_of(superlink: Process, gate: Process) -> Iterator[tuple[str, psutil.Process]]:
    """Each process of the server, with what it is."""
    yield from (("SuperLink", member) for member in family(superlink))
    for member in family(gate):
        words = " ".join(member.cmdline())
        is_nginx = member.name().startswith("nginx")
        yield (
            ("nginx" if is_nginx else "relay" if "sims.relay.serving" in words else "verifier"),
            member,
        )


def cpu_s(superlink: Process, gate: Process) -> dict[str, float]:
    """Processor seconds of each part until now."""
    found: dict[str, float] = {}
    for part, member in parts_of(superlink, gate):
        with suppress(psutil.NoSuchProcess):
            found[part] = found.get(part, 0.0) + sum(member.cpu_times()[:2])
    return found


@contextmanager
def crowd(hosts: Gated, keys: Path) -> Iterator["subprocess.Popen[str]"]:
    """Devices that wait, all connected."""
    asked = {"port": hosts.port, "authority": str(hosts.certificates.authority), "keys": str(keys)}
    with subprocess.Popen(
        [sys.executable, "-m", "sims.benchmarks.crowd", json.dumps(asked)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=hosts.environment,
    ) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "connected\n":
            raise RuntimeError("The devices did not connect.")
        yield process


def measure(n_devices: int) -> Found:
    """What this many take, over one period in which each signs once."""
    with gated() as hosts:
        superlink = hosts.start_superlink()
        keys = register(hosts, n_devices)
        gate = hosts.start_gate()
        with crowd(hosts, keys) as process:
            time.sleep(SETTLE_S)
            before, begun_s = cpu_s(superlink, gate), time.monotonic()
            time.sleep(SIGN_EACH_S)
            after, seconds = cpu_s(superlink, gate), time.monotonic() - begun_s
            relay = next(m for part, m in parts_of(superlink, gate) if part == "relay")
            relay_bytes = relay.memory_info().rss
            told, _ = process.communicate("end\n")
        cores = {part: (after[part] - before.get(part, 0.0)) / seconds for part in after}
        return Found(n_devices, seconds, cores, relay_bytes, json.loads(told))


def render(found: Sequence[Found]) -> str:
    """The report in Markdown."""
    parts = ("SuperLink", "relay", "nginx", "verifier")
    rows = [
        (
            one.n_devices,
            *(f"{one.cores.get(part, 0.0):.3f}" for part in parts),
            f"{sum(one.cores.values()):.3f}",
            f"{one.relay_bytes / 1e6:.0f} MB",
            one.counts["ended"],
        )
        for one in found
    ]
    heads = ("devices", *(f"{part}, cores" for part in parts), "all", "relay's memory", "cut off")
    return (
        "# Devices that wait\n\n"
        "`python -m sims.benchmarks.waiting OUT.md`: SuperLink and gate on one host, with TLS and "
        "a registered key and a connection for each device, on loopback from 20 addresses or more; "
        "no SuperNode is behind them, and each says what `fed-ist supernode` says while it waits. "
        f"Over {found[0].seconds:.0f} s, in which each signs once.\n\n{table(heads, rows)}\n"
    )


def measure_all(out: Path, numbers: Sequence[int]) -> int:
    """Measure all, and write the report after each; returns an exit code."""
    found: list[Found] = []
    with exit_at_sigterm():
        for number in numbers:
            found.append(measure(number))
            out.write_text(render(found), encoding="utf-8")
            print(found[-1], flush=True)
    return 0


if __name__ == "__main__":
    chosen = tuple(int(word) for word in sys.argv[2:]) or DEFAULT
    sys.exit(exit_code(lambda: measure_all(Path(sys.argv[1]), chosen)))
