"""What a node computes for the server, on plain arrays: statistics, and the training of a slice."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.layout import Params
from fed_ist.config.derive import count_features, local_training
from fed_ist.config.run_config import RunConfig
from fed_ist.errors import InputError
from fed_ist.rng import generator
from fed_ist.statistics.anchors import draw_projection, features, random_inputs
from fed_ist.statistics.coarse import Coarse, coarse_gram, coarse_sums
from fed_ist.statistics.factors import STEPS, factorise
from fed_ist.statistics.gaussians import class_gaussians
from fed_ist.statistics.ridge import class_sums, gram_statistics, with_noise
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import encode
from fed_ist.traffic.top_k import Payload, top_k
from fed_ist.training.local import Examples, train


def statistics(
    kind: str, examples: Examples, num_classes: int, config: RunConfig, noise: np.random.Generator
) -> dict[str, NDArray[Any]] | Coarse:
    """The arrays that answer a request for statistics, or what is sent for them in few bits.

    kind: one of the protocol's words for statistics. examples: embeddings, float32 (n, embed_dim),
    and labels, int64 (n,). noise: draws what `statistics-noise` adds.
    """
    values, labels = examples
    is_coarse = config.statistics_codec in STEPS
    if kind == protocol.GAUSSIANS:
        return dict(vars(class_gaussians(values, labels, num_classes)))
    if kind == protocol.CLASS_SUMS:
        of_classes = class_sums(features(values, None), labels, num_classes)
        return coarse_sums(of_classes) if is_coarse else {protocol.CLASS_SUMS: of_classes}
    assert kind in (protocol.GRAM, protocol.RANDOM_GRAM), kind
    n_features = count_features(config, num_classes) if kind == protocol.RANDOM_GRAM else 0
    projection = draw_projection(values.shape[1], n_features, config.seed)
    stats = gram_statistics(features(values, projection), labels, num_classes)
    if config.statistics_noise:
        noisy = with_noise(stats, config.statistics_noise, noise)  # which has no such factor
        return {protocol.GRAM: noisy.gram, protocol.CLASS_SUMS: noisy.sums}
    if is_coarse:
        return coarse_gram(stats)
    triangle, sums = factorise(stats)
    return {protocol.GRAM: triangle, protocol.CLASS_SUMS: sums}


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
    started = time.perf_counter()
    server_round = int(task[protocol.ROUND])
    how = local_training(config, server_round)
    values, labels = passes(0)
    n_examples = len(labels)
    fixed = fixed | random_inputs(values.shape[1], config.random_features, config.seed)
    first_pass = (server_round - 1) * how.count_passes(n_examples)
    trained, loss = train(
        params,
        lambda i: passes(first_pass + i),
        how,
        float(task[protocol.SCALE]),
        generator(config.seed, "train", server_round, node_number),
        fixed,
        task.get(protocol.LEVELS, (1.0,)),
    )
    return trained, {
        protocol.NUM_EXAMPLES: n_examples,
        protocol.LOSS: loss,
        protocol.SECONDS: time.perf_counter() - started,
    }


def encode_reply(
    trained: Params, sent: Params, server_round: int, node_number: int, config: RunConfig
) -> bytes:
    """The trained slice, or how it differs from the one that came, in `up-codec`.

    trained, sent: float32 arrays of the same names and shapes.
    """
    rng = generator(config.seed, "up", server_round, node_number)
    back = trained if config.reply == "slice" else _difference(trained, sent)
    return encode(back, config.up_codec, rng, config.zstd)


def largest_changes(
    trained: Params, sent: Params, memory: Params | None, config: RunConfig
) -> tuple[Payload, Params]:
    """(the largest changes, as top-k sends them; the others, which it keeps for the next round).

    trained, sent, memory: float32 arrays of the same names and shapes; memory is what was kept so
    far, None for nothing.
    Raises `InputError` where training diverged, so that nothing can be sent.
    """
    try:
        return top_k(_difference(trained, sent), config.upload_share, memory)
    except ValueError as error:
        raise InputError(f"This node's update cannot be sent: {error}") from None


def _difference(trained: Params, sent: Params) -> Params:
    return {name: trained[name] - sent[name] for name in sent}
