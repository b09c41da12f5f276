"""Local differential privacy: what a node has learnt is clipped and gets noise before it leaves.

Flower's `LocalDpMod` does both; `fed_ist.training.privacy` says how much noise, and what it buys.
The loss is left out of the answer then, as it tells of the images too. Not hidden are the number of
images, the seconds, and statistics, which have a noise of their own (`statistics-noise`).
"""

import math

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp.mod import LocalDpMod
from flwr.clientapp.typing import ClientAppCallable

from clients.node import identify
from fed_ist.config.derive import dp_noise
from fed_ist.config.parsing import parse_config
from fed_ist.config.run_config import RunConfig
from fed_ist.rng import generator
from fed_ist.traffic import protocol


def private(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A Flower mod for slices that are plain arrays, of runs with a `dp-clip-norm`."""
    config = parse_config(context.run_config)
    server_round = int(message.content.config_records[protocol.TASK][protocol.ROUND])  # type: ignore[arg-type]

    def trained(message: Message, context: Context) -> Message:
        reply = call_next(message, context)
        _seed_noise(context, config, server_round)
        return reply

    state = np.random.get_state()  # Flower draws the noise from numpy's global one
    try:
        reply = _mod(config)(message, context, trained)
    finally:
        np.random.set_state(state)
    if not reply.has_error():
        reply.content.config_records[protocol.REPLY][protocol.LOSS] = 0.0
    return reply


def _mod(config: RunConfig) -> LocalDpMod:
    # Flower's formula holds for an epsilon below 1 alone: it gets the sensitivity that makes the
    # noise what it must be.
    usual = math.sqrt(2 * math.log(1.25 / config.dp_delta)) / config.dp_epsilon
    return LocalDpMod(
        clipping_norm=config.dp_clip_norm,
        sensitivity=dp_noise(config) / usual,
        epsilon=config.dp_epsilon,
        delta=config.dp_delta,
    )


def _seed_noise(context: Context, config: RunConfig, server_round: int) -> None:
    """Noise that the server could draw again would hide nothing; a simulation hides nothing."""
    node = identify(context)
    if node.n_nodes:
        rng = generator(config.seed, "private", server_round, node.number)
        np.random.seed(rng.integers(2**32, size=4, dtype=np.uint32))
    else:
        np.random.seed()  # from the operating system
