"""Single-board computers as nodes: their memory, speed, links and power."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """What is known of a node's hardware; None for what is unknown and so limits nothing.

    memory_bytes: that training may take, in addition to Python and its libraries.
    multiply_adds_per_s: of training, as `layout.multiply_adds` counts them.
    down_bytes_per_s, up_bytes_per_s: of its link, towards the node and from it.
    step_s: seconds of a step of the optimiser, in addition to its multiply-adds.
    """

    memory_bytes: float | None = None
    multiply_adds_per_s: float | None = None
    down_bytes_per_s: float | None = None
    up_bytes_per_s: float | None = None
    step_s: float | None = None


# Rough: a board in the field may differ by a factor of two or three. Training is on the CPU, also
# on a Jetson. Linpack gives 0.37 GFLOPS on a Pi Zero 2 W and 11.4 on a Pi 4's chip
# (github.com/geerlingguy/top500-benchmark, issues 26 and 33). A multiply-add is two operations,
# single precision is twice as fast as Linpack's double, and small batches reach perhaps a quarter
# of that speed; on a Zero, whose Linpack run was short of memory, they may reach all of it. The
# Nano has four A57 cores at 1.4 GHz, much like the Pi 4's four A72 at 1.5. On a core of the machine
# where this was written, a step took 1 to 2 ms in addition to its multiply-adds; a Pi 4's core is
# assumed to be four times slower at that, a Zero's twelve times. Links: 2.4 GHz and 5 GHz Wi-Fi, a
# 100 Mbit/s cable.
PROFILES: Mapping[str, Device] = {
    "pi-zero": Device(100e6, 0.4e9, 20e6 / 8, 10e6 / 8, 0.024),  # a Zero 2 W with 512 MB
    "pi-4": Device(1500e6, 3e9, 80e6 / 8, 80e6 / 8, 0.008),  # with 4 GB
    "jetson-nano": Device(1500e6, 3e9, 100e6 / 8, 100e6 / 8, 0.008),  # with 4 GB
}


# Watts of the whole board under load. For the Pis they are averages at the wall during Linpack,
# from the same source: a Zero 2 W that was short of memory (issue 26), so that other loads take
# more; a Pi 4 at 1.8 GHz (issue 13; a compute module at 1.5 GHz took 5.2 W and was 4% slower, issue
# 33). For the Nano's CPU alone no measurement was found: this is NVIDIA's budget of the module in
# the mode with four cores at 1.4 GHz, an upper limit, as its GPU is idle (Jetson Linux Developer
# Guide 32.7.1, "Power Management for Jetson Nano",
# docs.nvidia.com/jetson/archives/l4t-archived/l4t-3271).
POWER_W: Mapping[str, float] = {"pi-zero": 2.1, "pi-4": 7.2, "jetson-nano": 10.0}
