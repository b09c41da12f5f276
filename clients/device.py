"""What a node says of itself where rounds have a deadline: declared, else measured.

The rates of its link are declared or unknown: a node cannot measure them without a peer, and the
server sees the replies of a round all at once.
"""

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import psutil

from clients.node import Node
from fed_ist.capacity import PROFILES, Device
from fed_ist.config import RunConfig
from fed_ist.errors import InputError
from fed_ist.heads import init_params, multiply_adds

WARM_UP_STEPS, TIMED_STEPS = 3, 10

# Key of the node config -> (unit, how many bytes, multiply-adds or bytes a second it is).
DECLARED = {
    "memory-mb": ("megabytes", 1e6),
    "speed-gmacs": ("billions of multiply-adds a second", 1e9),
    "down-kbps": ("kilobits a second", 125.0),
    "up-kbps": ("kilobits a second", 125.0),
}


def declared_device(node: Node, node_config: Mapping[str, object], config: RunConfig) -> Device:
    """The profile of a simulated node, or what a device's node config says."""
    if node.n_nodes and config.device_names:
        return PROFILES[config.device_names[node.number % len(config.device_names)]]
    return Device(*[_declared(key, node_config.get(key)) for key in DECLARED])


def _declared(key: str, value: object) -> float | None:
    if value is None:
        return None
    unit, factor = DECLARED[key]
    if type(value) not in (int, float) or not 0 < value < float("inf"):  # type: ignore[operator]
        raise InputError(f"{key} = {value!r} is not possible: give a number above 0, in {unit}.")
    return float(value) * factor  # type: ignore[arg-type]


def measured_device(
    declared: Device, config: RunConfig, embed_dim: int, num_classes: int
) -> Device:
    """The same, with memory and speed measured where they are not declared."""
    memory_bytes, speed = declared.memory_bytes, declared.multiply_adds_per_s
    if memory_bytes is None:
        memory_bytes = float(psutil.virtual_memory().available)
    if speed is None:
        speed = training_speed(config, embed_dim, num_classes)
    return replace(declared, memory_bytes=memory_bytes, multiply_adds_per_s=speed)


def training_speed(config: RunConfig, embed_dim: int, num_classes: int) -> float:
    """Multiply-adds a second, from a few steps on a slice with an eighth of the neurons.

    A step costs something beside them, so that a smaller slice is slower than this says, and a
    larger one faster.
    """
    from fed_ist.training import local_training, train  # only here, as torch takes seconds to load

    rng = np.random.default_rng(0)
    width = max(1, config.hidden_dim // 8)
    params = init_params(embed_dim, width, num_classes, rng, config.hidden_layers, config.norm)
    values = rng.normal(size=(config.batch_size, embed_dim)).astype(np.float32)
    labels = rng.integers(0, num_classes, config.batch_size)
    how = replace(local_training(config), local_epochs=0)

    def steps(n_steps: int) -> None:
        train(params, lambda _: (values, labels), replace(how, local_steps=n_steps), 1.0, 0)

    steps(WARM_UP_STEPS)
    started = time.perf_counter()
    steps(TIMED_STEPS)
    seconds = time.perf_counter() - started
    return multiply_adds(params) * config.batch_size * TIMED_STEPS / seconds
