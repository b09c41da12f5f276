"""What a node computes for the server, on plain arrays: statistics, and the training of a slice."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist import protocol
from fed_ist.anchors import draw_projection, features
from fed_ist.compression import Payload, quantise, top_k
from fed_ist.config import RunConfig
from fed_ist.errors import InputError
from fed_ist.gaussians import class_gaussians
from fed_ist.heads import Params
from fed_ist.rng import generator, torch_seed
from fed_ist.statistics import class_sums, gram_statistics, with_noise

Examples = tuple[NDArray[np.float32], NDArray[np.int64]]


def statistics(
    kind: str, examples: Examples, num_classes: int, config: RunConfig, noise: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """The arrays that answer a request for statistics of one kind (see `fed_ist.protocol`)."""
    values, labels = examples
    if kind == protocol.GAUSSIANS:
        return dict(vars(class_gaussians(values, labels, num_classes)))
    if kind == protocol.CLASS_SUMS:
        return {protocol.CLASS_SUMS: class_sums(features(values, None), labels, num_classes)}
    assert kind in (protocol.GRAM, protocol.RANDOM_GRAM), kind
    n_features = config.count_features(num_classes) if kind == protocol.RANDOM_GRAM else 0
    projection = draw_projection(values.shape[1], n_features, config.seed)
    stats = gram_statistics(features(values, projection), labels, num_classes)
    if config.statistics_noise:
        stats = with_noise(stats, config.statistics_noise, noise)
    return {protocol.GRAM: stats.gram, protocol.CLASS_SUMS: stats.sums}


def train_slice(
    params: Params,
    fixed: Params,
    passes: Callable[[int], Examples],
    task: dict[str, Any],
    node_number: int,
    config: RunConfig,
) -> tuple[Params, dict[str, int | float]]:
    """The trained slice, and the scalars that go with it.

    fixed: what statistics gave the classifier, empty for nothing.
    passes: pass number, over the whole run -> (embeddings, labels).
    """
    from fed_ist.training import local_training, train  # only here, as torch takes seconds to load

    started = time.perf_counter()
    server_round = int(task[protocol.ROUND])
    how = local_training(config, server_round)
    n_examples = len(passes(0)[1])
    first_pass = (server_round - 1) * how.count_passes(n_examples)
    trained, loss = train(
        params,
        lambda i: passes(first_pass + i),
        how,
        float(task[protocol.SCALE]),
        torch_seed(config.seed, "train", server_round, node_number),
        fixed,
        task.get(protocol.LEVELS, (1.0,)),
    )
    return trained, {
        protocol.NUM_EXAMPLES: n_examples,
        protocol.LOSS: loss,
        protocol.SECONDS: time.perf_counter() - started,
    }


def encode_update(
    trained: Params,
    sent: Params,
    memory: Params | None,
    task: dict[str, Any],
    node_number: int,
    config: RunConfig,
) -> tuple[Payload, Params | None]:
    """(what travels back, what top-k keeps for the next round).

    Raises `InputError` where training diverged, so that nothing can be compressed.
    """
    upload = task.get(protocol.UPLOAD)
    if upload is None:
        return dict(trained), memory
    update = {name: trained[name] - sent[name] for name in sent}
    try:
        if upload == protocol.TOP_K:
            return top_k(update, config.upload_share, memory)
        rng = generator(config.seed, "quantise", int(task[protocol.ROUND]), node_number)
        return quantise(update, config.upload_bits, rng), None
    except ValueError as error:
        raise InputError(f"This node's update cannot be sent: {error}") from None
