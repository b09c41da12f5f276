"""Partition, extract and merge, by hand-worked examples and by their laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.classifier.dealing import equal_shares, leading_neurons, partition_neurons
from fed_ist.classifier.layout import init_params
from fed_ist.classifier.network import forward
from fed_ist.classifier.slices import Subnet, are_disjoint, extract, merge, slice_bytes
from fed_ist.errors import InputError
from fed_ist.training.local import LocalTraining, evaluate, train

HIDDEN = st.integers(1, 24)


def params(hidden: int = 12, seed: int = 0, embed: int = 5, classes: int = 3):
    return init_params(embed, hidden, classes, np.random.default_rng(seed))


def widths(hidden: int):
    return {"h1": hidden, "h2": hidden}


def deal(widths, n_groups: int, rng):
    return partition_neurons(widths, equal_shares([1.0] * n_groups), rng)


def other(slice_, seed: int):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=a.shape).astype(np.float32) for name, a in slice_.items()}


@given(hidden=HIDDEN, n_groups=st.integers(1, 24), seed=st.integers(0, 2**32))
def test_groups_are_disjoint_cover_all_neurons_and_differ_by_one_at_most(hidden, n_groups, seed):
    if n_groups > hidden:
        with pytest.raises(InputError, match=f"hidden-dim = {hidden} is smaller than the number"):
            deal(widths(hidden), n_groups, np.random.default_rng(seed))
        return
    subnets = deal(widths(hidden), n_groups, np.random.default_rng(seed))
    for axis in ("h1", "h2"):
        neurons = [subnet.neurons[axis] for subnet in subnets]
        assert sorted(np.concatenate(neurons)) == list(range(hidden))
        assert max(map(len, neurons)) - min(map(len, neurons)) <= 1
        assert all((np.diff(group) > 0).all() for group in neurons)


def test_the_same_seed_deals_the_same_groups_and_another_seed_others():
    first, same, differs = (deal(widths(12), 3, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all((a.neurons["h1"] == b.neurons["h1"]).all() for a, b in zip(first, same, strict=True))
    assert any(
        (a.neurons["h1"] != b.neurons["h1"]).any() for a, b in zip(first, differs, strict=True)
    )


def test_extract_takes_rows_columns_and_biases_of_a_worked_example():
    fc2 = np.arange(16, dtype=np.float32).reshape(4, 4)
    whole = params(hidden=4) | {"fc2.weight": fc2}
    slice_ = extract(whole, Subnet({"h1": np.array([0, 3]), "h2": np.array([1, 2])}))
    assert slice_["fc2.weight"].tolist() == [[4, 7], [8, 11]]
    assert (slice_["fc1.weight"] == whole["fc1.weight"][[0, 3]]).all()
    assert (slice_["fc1.bias"] == whole["fc1.bias"][[0, 3]]).all()
    assert (slice_["fc2.bias"] == whole["fc2.bias"][[1, 2]]).all()
    assert (slice_["fc3.weight"] == whole["fc3.weight"][:, [1, 2]]).all()
    assert (slice_["fc3.bias"] == whole["fc3.bias"]).all()


@given(hidden=HIDDEN, data=st.data(), seed=st.integers(0, 2**32))
def test_what_is_merged_is_what_is_extracted_again(hidden, data, seed):
    n_groups = data.draw(st.integers(1, hidden))
    whole = params(hidden)
    subnets = deal(widths(hidden), n_groups, np.random.default_rng(seed))
    news = [other(extract(whole, subnet), i) for i, subnet in enumerate(subnets)]
    merged = merge(whole, [(s, new, 7) for s, new in zip(subnets, news, strict=True)])
    for subnet, new in zip(subnets, news, strict=True):
        again = extract(merged, subnet)
        for name in set(new) - {"fc3.bias"}:
            assert (again[name] == new[name]).all()
    mean = np.mean([new["fc3.bias"].astype(np.float64) for new in news], axis=0)
    assert np.allclose(merged["fc3.bias"], mean, atol=1e-6)


@given(seed=st.integers(0, 2**32), absent=st.integers(0, 2))
def test_a_missing_group_keeps_its_neurons_and_weights_between_groups_rest(seed, absent):
    whole = params(12)
    subnets = deal(widths(12), 3, np.random.default_rng(seed))
    present = [subnet for i, subnet in enumerate(subnets) if i != absent]
    merged = merge(whole, [(s, other(extract(whole, s), i), 5) for i, s in enumerate(present)])
    kept, old = extract(merged, subnets[absent]), extract(whole, subnets[absent])
    for name in set(kept) - {"fc3.bias"}:
        assert (kept[name] == old[name]).all()
    a, b = present
    between = np.ix_(a.neurons["h2"], b.neurons["h1"])
    assert (merged["fc2.weight"][between] == whole["fc2.weight"][between]).all()


def test_merge_changes_neither_the_old_parameters_nor_the_slices():
    whole = params(6)
    before = {name: array.copy() for name, array in whole.items()}
    subnet = deal(widths(6), 2, np.random.default_rng(0))[0]
    slice_ = extract(whole, subnet)
    for array in slice_.values():
        array += 1
    merge(whole, [(subnet, slice_, 1)])
    assert all((whole[name] == before[name]).all() for name in whole)


def test_no_reply_changes_nothing():
    whole = params(6)
    assert all((merge(whole, [])[name] == whole[name]).all() for name in whole)


def test_clients_of_one_group_are_averaged_by_their_examples():
    whole = params(4)
    subnet = deal(widths(4), 2, np.random.default_rng(0))[1]
    slice_ = extract(whole, subnet)
    ones = {name: np.ones_like(array) for name, array in slice_.items()}
    fives = {name: np.full_like(array, 5) for name, array in slice_.items()}
    merged = extract(merge(whole, [(subnet, ones, 30), (subnet, fives, 10)]), subnet)
    assert all((array == 2).all() for array in merged.values())


def test_where_slices_overlap_each_weight_is_the_mean_of_what_came_back_for_it():
    whole = params(3)
    a = Subnet({"h1": np.array([0, 1]), "h2": np.array([0])})
    b = Subnet({"h1": np.array([1]), "h2": np.array([0, 2])})
    ones = {name: np.ones_like(array) for name, array in extract(whole, a).items()}
    fives = {name: np.full_like(array, 5) for name, array in extract(whole, b).items()}
    merged = merge(whole, [(a, ones, 3), (b, fives, 1)])
    assert merged["fc1.bias"][:2].tolist() == [1, 2]
    assert merged["fc1.bias"][2] == whole["fc1.bias"][2]
    assert merged["fc2.weight"][0, :2].tolist() == [1, 2]
    assert merged["fc2.weight"][2, 1] == 5
    assert merged["fc2.weight"][2, 0] == whole["fc2.weight"][2, 0]
    assert (merged["fc3.bias"] == 2).all()


@pytest.mark.parametrize("overlap", [False, True])
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_replies_may_be_merged_in_any_order(overlap, data, seed):
    rng, whole = np.random.default_rng(seed), params(9)
    dealt = deal(widths(9), 3, rng)
    dealt += [leading_neurons(widths(9), 0.5), leading_neurons(widths(9), 1.0)] if overlap else []
    replies = [
        (dealt[i % len(dealt)], other(extract(whole, dealt[i % len(dealt)]), i), 10**i)
        for i in range(8)
    ]
    merged = merge(whole, replies)
    again = merge(whole, data.draw(st.permutations(replies)))
    assert all((merged[name] == again[name]).all() for name in whole)


@given(data=st.data())
def test_slices_of_one_neuron_in_common_are_not_disjoint(data):
    subnets = deal(widths(9), 3, np.random.default_rng(data.draw(st.integers(0, 99))))
    assert are_disjoint([*subnets, subnets[0]])  # more than once is no other slice
    neurons = {axis: rows.copy() for axis, rows in subnets[0].neurons.items()}
    axis = data.draw(st.sampled_from(sorted(neurons)))
    neurons[axis][0] = subnets[1].neurons[axis][-1]
    assert not are_disjoint([Subnet(neurons), *subnets[1:]])


@given(weight=st.integers(1, 2**29 - 1), seed=st.integers(0, 2**32))
def test_the_mean_of_one_reply_is_that_reply_bit_for_bit(weight, seed):
    whole, one = params(8), params(8, seed)
    (everything,) = deal(widths(8), 1, np.random.default_rng(0))
    merged = merge(whole, [(everything, one, weight)])
    assert all((merged[name] == one[name]).all() for name in one)


@pytest.mark.parametrize("n_groups", [1, 2, 4, 8])
def test_the_formula_counts_the_bytes_of_a_slice(n_groups):
    whole = params(hidden=64, embed=24, classes=7)
    for subnet in deal(widths(64), n_groups, np.random.default_rng(0)):
        assert sum(a.nbytes for a in extract(whole, subnet).values()) == slice_bytes(
            24, 64, 7, n_groups
        )


def examples(n: int = 90, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    x[np.arange(n), labels] += 3
    return x, labels


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_one_group_and_one_client_is_plain_training_bit_for_bit(optimizer):
    """The reference is training of the whole network; its neurons are dealt in their own order."""
    x, y = examples()
    whole = reference = params(16)
    how = LocalTraining(2, 0, 32, optimizer, 0.01)
    for server_round in range(3):
        (subnet,) = deal(widths(16), 1, np.random.default_rng(server_round))
        rng, same = (np.random.default_rng(server_round) for _ in range(2))
        trained, _ = train(extract(whole, subnet), lambda _: (x, y), how, 1.0, rng)
        whole = merge(whole, [(subnet, trained, len(y))])
        reference, _ = train(reference, lambda _: (x, y), how, 1.0, same)
    assert all((whole[name] == reference[name]).all() for name in whole)


def test_rescaling_makes_the_expected_logits_of_a_group_those_of_the_network():
    """Averaged over partitions, the scaled sums of the last layer are the whole network's."""
    whole = params(hidden=8, seed=3)
    h = np.abs(np.random.default_rng(0).normal(size=(1, 8))).astype(np.float32)
    sums = []
    for seed in range(4000):
        for subnet in deal(widths(8), 4, np.random.default_rng(seed)):
            sums.append(
                4 * h[:, subnet.neurons["h2"]] @ whole["fc3.weight"][:, subnet.neurons["h2"]].T
            )
    assert np.allclose(np.mean(sums, axis=0), h @ whole["fc3.weight"].T, atol=1e-2)


def test_a_scale_of_one_is_the_plain_network():
    whole, (x, _) = params(8), examples()
    hidden = np.maximum(x @ whole["fc1.weight"].T + whole["fc1.bias"], 0)
    hidden = np.maximum(hidden @ whole["fc2.weight"].T + whole["fc2.bias"], 0)
    expected = hidden @ whole["fc3.weight"].T + whole["fc3.bias"]
    assert np.allclose(forward(whole, x, 1.0), expected, atol=1e-6)


def test_training_learns_and_counts_steps_or_epochs():
    x, y = examples(300)
    trained, loss = train(
        params(16),
        lambda _: (x, y),
        LocalTraining(20, 0, 32, "adam", 0.01),
        1,
        np.random.default_rng(0),
    )
    accuracy, test_loss = evaluate(trained, *examples(300, seed=1))
    assert accuracy > 0.9
    assert 0 < test_loss < 0.5
    assert loss < 1
    how = LocalTraining(
        local_epochs=3, local_steps=0, batch_size=32, optimizer="sgd", learning_rate=1
    )
    assert (how.count_steps(100), how.count_passes(100)) == (12, 3)
    how = LocalTraining(
        local_epochs=3, local_steps=5, batch_size=32, optimizer="sgd", learning_rate=1
    )
    assert (how.count_steps(100), how.count_passes(100)) == (5, 2)


def test_each_pass_asks_for_its_own_embeddings():
    asked = []

    def at(number: int):
        asked.append(number)
        return examples(seed=number)

    train(params(8), at, LocalTraining(3, 0, 32, "sgd", 0.1), 1, np.random.default_rng(0))
    assert asked == [0, 1, 2]
