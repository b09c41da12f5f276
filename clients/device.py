"""What a node says of itself where rounds have a deadline: declared, else measured.

The rates of its link are declared, one by one or by the link's name, or unknown: a node cannot
measure them without a peer, and the server sees the replies of a round all at once.
"""

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import psutil

from clients.node import Node
from fed_ist.classifier.layout import init_params, multiply_adds
from fed_ist.config.derive import count_inputs, local_training, simulated_device
from fed_ist.config.run_config import RunConfig
from fed_ist.errors import InputError, require_choice
from fed_ist.traffic.links import find_link
from fed_ist.training.boards import Device
from fed_ist.training.local import train

WARM_UP_STEPS, TIMED_STEPS, REPEATS = 3, 10, 3

# Key of the node config -> (unit, how many bytes, multiply-adds or bytes a second it is).
DECLARED = {
    "memory-mb": ("megabytes", 1e6),
    "speed-gmacs": ("billions of multiply-adds a second", 1e9),
    "down-kbps": ("kilobits a second", 125.0),
    "up-kbps": ("kilobits a second", 125.0),
    "step-ms": ("milliseconds", 1e-3),
}
# What a node config may have; the last two are those of a simulated node.
KEYS = ("data-path", "name", "link", "capacity", *DECLARED, "partition-id", "num-partitions")


def require_known_keys(node_config: Mapping[str, object]) -> None:
    """Raise `InputError` for a key that means nothing, as one that is misspelt does."""
    for key in node_config:
        require_choice("key of the node config", key, KEYS)


def declared_device(node: Node, node_config: Mapping[str, object], config: RunConfig) -> Device:
    """The profile of a simulated node, or what a device's node config says."""
    if node.n_nodes and (profile := simulated_device(config, node.number)):
        return profile
    found = Device(*[_declared(key, node_config.get(key)) for key in DECLARED])
    if "link" not in node_config:
        return found
    link = find_link(str(node_config["link"]))
    return replace(
        found,
        down_bytes_per_s=found.down_bytes_per_s or link.down_bps / 8,
        up_bytes_per_s=found.up_bytes_per_s or link.up_bps / 8,
    )


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
    """The same, with memory and speed measured where no part of them is declared.

    A declared speed without `step-ms` is taken to hold for small slices too.
    """
    found = declared
    if found.memory_bytes is None:
        found = replace(found, memory_bytes=float(psutil.virtual_memory().available))
    if found.multiply_adds_per_s is None and found.step_s is None:
        speed, step_s = training_speed(config, embed_dim, num_classes)
        found = replace(found, multiply_adds_per_s=speed, step_s=step_s)
    return found


def training_speed(config: RunConfig, embed_dim: int, num_classes: int) -> tuple[float, float]:
    """(multiply-adds a second, seconds that a step takes beside them), from two short trainings.

    One is of a single neuron, which gives the latter, one of a quarter of the neurons.
    """
    least_s, _ = _step_s(config, embed_dim, num_classes, 1)
    step_s, n_multiply_adds = _step_s(
        config, embed_dim, num_classes, max(2, config.hidden_dim // 4)
    )
    # Noise may hide the difference between them; then the whole step counts for the multiply-adds.
    training_s = step_s - least_s if step_s > 1.1 * least_s else step_s
    return n_multiply_adds / training_s, min(least_s, step_s)


def _step_s(config: RunConfig, embed_dim: int, num_classes: int, width: int) -> tuple[float, int]:
    """(seconds, multiply-adds) of a step on a slice with `width` neurons in each hidden layer."""
    rng = np.random.default_rng(0)
    embed_dim = count_inputs(config, embed_dim)
    params = init_params(embed_dim, width, num_classes, rng, config.hidden_layers, config.norm)
    n_examples = config.batch_size * TIMED_STEPS
    values = rng.normal(size=(n_examples, embed_dim)).astype(np.float32)
    labels = rng.integers(0, num_classes, n_examples)
    how = local_training(config)

    def seconds_of(n_steps: int) -> float:
        started = time.perf_counter()
        train(params, lambda _: (values, labels), replace(how, local_steps=n_steps), 1.0, rng)
        return time.perf_counter() - started

    seconds_of(WARM_UP_STEPS)
    # The least, as whatever else runs on the node only adds to it.
    least_s = min(seconds_of(TIMED_STEPS) for _ in range(REPEATS))
    return least_s / TIMED_STEPS, multiply_adds(params) * config.batch_size
