"""Runs over shared embeddings: the bytes are those of a run on images, and a seed decides all."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from federation import CLASSES

from clients.node import Node
from clients.work import train_slice
from fed_ist.classifier.layout import init_params
from fed_ist.config.derive import local_training
from fed_ist.config.methods import CLOSED_FORMS, STRATEGIES
from fed_ist.encoder.embeddings import Counts, Embeddings
from fed_ist.encoder.frozen import create_encoder
from fed_ist.encoder.spec import EncoderSpec
from fed_ist.errors import InputError
from fed_ist.traffic import protocol
from sims.experiments.one_run import run_case
from sims.experiments.shared_embeddings import (
    Shared,
    SharedData,
    embed_shared,
    load_shared,
    open_shared,
)

EMBED = 12


def embeddings(n: int, seed: int) -> Embeddings:
    """Four classes in 12 dimensions."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    values = rng.normal(size=(n, EMBED)).astype(np.float32)
    values[np.arange(n), labels] += 3
    return Embeddings(values, labels, Counts(n, 0, 1000 * n, 800 * n, 600 * n))


@pytest.fixture(scope="module")
def shared() -> Shared:
    return Shared((embeddings(240, 0),), embeddings(200, 1), tuple("abcd"), decorrelated=False)


@pytest.fixture
def configure(make_config):
    return partial(
        make_config, hidden_dim=16, num_rounds=3, local_epochs=1, batch_size=16, learning_rate=0.01
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_gives_a_course_of_rising_bytes_that_repeats_itself(
    strategy, configure, shared
):
    config = configure(strategy=strategy, num_rounds=5, server_learning_rate=0.0)
    outcome, again = (run_case(config, shared, 4) for _ in range(2))
    assert replace(again, compute_s=0) == replace(outcome, compute_s=0)
    n_points = 1 if strategy in CLOSED_FORMS else 5  # the untrained classifier is no result
    assert len(outcome.client_bytes) == len(outcome.accuracy) == n_points
    assert (np.diff(outcome.client_bytes) > 0).all()
    assert outcome.client_bytes[0] > 0
    assert all(0 <= accuracy <= 1 for accuracy in outcome.accuracy)
    assert max(outcome.accuracy) > 0.5  # of four classes
    assert (outcome.compute_s > 0) == (outcome.multiply_adds > 0) == (n_points > 1)


@pytest.mark.parametrize("strategy", ["ist", "feddropout", "topk"])
def test_another_seed_gives_another_course_of_the_same_bytes(strategy, configure, shared):
    first, other = (run_case(configure(strategy=strategy, seed=seed), shared, 4) for seed in (0, 1))
    assert first.accuracy != other.accuracy
    assert first.client_bytes == other.client_bytes


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.01] * 4),
        ("cosine", [0.01, 0.01 * (2 + 2**0.5) / 4, 0.005, 0.01 * (2 - 2**0.5) / 4]),
    ],
)
def test_a_schedule_of_a_worked_example(schedule, rates, configure):
    config = configure(num_rounds=4, learning_rate_schedule=schedule)
    found = [local_training(config, server_round).learning_rate for server_round in (1, 2, 3, 4)]
    assert found == pytest.approx(rates)


def test_a_node_trains_at_the_rate_of_the_round(configure):
    """With plain SGD a single step moves the weights in proportion to the rate."""
    rng = np.random.default_rng(0)
    params = init_params(EMBED, 16, 4, rng)
    config = configure(
        num_rounds=4,
        learning_rate_schedule="cosine",
        optimizer="sgd",
        local_steps=1,
        batch_size=8,
    )
    found = []
    examples = (rng.normal(size=(8, EMBED)).astype(np.float32), rng.integers(0, 4, 8))
    for server_round in (1, 3):
        task = {protocol.ROUND: server_round, protocol.SCALE: 1.0}
        trained, _ = train_slice(params, {}, lambda _: examples, task, 0, config)
        found.append(trained["fc1.weight"] - params["fc1.weight"])
    assert np.allclose(found[0], 2 * found[1], atol=1e-6)
    assert np.abs(found[0]).max() > 1e-4


def test_multiply_adds_of_a_worked_example(configure, shared):
    """12 · 16 + 16 · 16 + 16 · 4 weights, three times each, on 240 / 4 examples in 3 rounds."""
    outcome = run_case(configure(strategy="fedavg", hidden_layers=2), shared, 4)
    assert outcome.multiply_adds == 3 * (12 * 16 + 16 * 16 + 16 * 4) * 60 * 3
    quarter = run_case(configure(strategy="ist", hidden_layers=2), shared, 4)
    assert quarter.multiply_adds == 3 * (12 * 4 + 4 * 4 + 4 * 4) * 60 * 3


def test_more_nodes_than_examples_is_one_sentence(configure, shared):
    with pytest.raises(InputError, match=r"240 images .* cannot be divided among 241 nodes"):
        run_case(configure(), shared, 241)


# --- the same as with images ----------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder():
    return create_encoder(EncoderSpec(weights="random", pooling="cls", seed=0, in_chans=3))


@pytest.fixture
def on_images(federate, embedded):
    return partial(federate, cache_dir=embedded, num_rounds=2)


@pytest.mark.parametrize(
    ("strategy", "anchor"),
    [
        ("ist", "none"),
        ("ist", "ridge"),
        ("topk", "inputs"),
        ("fedrolex", "none"),
        ("fed3r", "none"),
    ],
)
def test_bytes_are_those_of_a_run_on_images(strategy, anchor, on_images, encoder):
    federation = on_images(strategy=strategy, anchor=anchor, capacities="1,0.5").prepare()
    numbers = range(1, federation.strategy.num_rounds + 1)
    federation.strategy.run(federation.grid, lambda *_: None)
    sums = np.zeros(1 + len(numbers))
    for line in federation.lines():
        sums[int(line["round"])] += int(line["message_bytes"]) / 3

    images = load_shared(
        embed_shared(federation.config, encoder, open_shared(federation.config, 0))
    )
    assert images.class_names == CLASSES
    outcome = run_case(federation.config, images, 3)
    expected = np.cumsum(sums)[-len(outcome.client_bytes) :]
    assert len(expected) >= len(numbers)
    assert outcome.client_bytes == pytest.approx(expected, abs=3)


def test_embeddings_of_the_whole_data_set_are_those_of_its_parts_but_for_their_masks(
    on_images, encoder
):
    """With a mask that is the same everywhere they are those of its parts."""
    federation = on_images(mask="grid").prepare()
    images = load_shared(
        embed_shared(federation.config, encoder, open_shared(federation.config, 0))
    )
    data = SharedData(images.train, federation.config, 3)
    for i in range(3):
        own = federation.examples(federation.node(i))
        values, labels = data.passes(None, Node(i, 3, ""), federation.config)(0)
        assert (labels == own.labels).all()
        assert values == pytest.approx(own.values, abs=1e-4)


def test_a_limit_chooses_as_many_images_of_each_split(on_images, encoder):
    config = on_images().config
    few = load_shared(embed_shared(config, encoder, open_shared(config, 4)))
    assert np.bincount(few.train[0].labels).tolist() == [1, 1, 1, 1]
    assert len(few.test.labels) == 4


# --- the parts of nodes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{}, {"partitioner": "dirichlet"}, {"partitioner": "pathological", "classes_per_node": 2}],
)
def test_nodes_part_the_examples_among_them(settings, configure, shared):
    config = configure(**settings)
    data = SharedData(shared.train, config, 4)
    parts = [data.passes(None, Node(i, 4, ""), config)(0) for i in range(4)]
    rows = [tuple(row) for values, _ in parts for row in values]
    assert sorted(rows) == sorted(map(tuple, shared.train[0].values))
    whole = dict(zip(map(tuple, shared.train[0].values), shared.train[0].labels, strict=True))
    for values, labels in parts:
        assert [whole[tuple(row)] for row in values] == labels.tolist()
    counts = [data.prepare(None, Node(i, 4, ""), config, tuple("abcd")) for i in range(4)]
    assert [c[protocol.NUM_EXAMPLES] for c in counts] == [len(labels) for _, labels in parts]
    assert [c[protocol.PACKED_BYTES] for c in counts] == [600 * len(labels) for _, labels in parts]
    assert all(set(c) == set(protocol.PREPARED) for c in counts)
