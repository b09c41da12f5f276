"""What is sent of an update: by hand-worked examples, to the bit and to the byte."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fed_ist.errors import InputError
from fed_ist.traffic.top_k import from_sparse, top_k

SEEDS = st.integers(0, 2**32)
SHARES = st.floats(0, 1, exclude_min=True)


def updates(largest: float):
    """Any float32 up to `largest`, the denormal included, in arrays of any shape."""
    entries = st.floats(-largest, largest, width=32)
    shapes = array_shapes(max_dims=2, max_side=5)
    return st.dictionaries(
        st.sampled_from(["fc1.weight", "fc1.bias", "fc2.weight"]),
        arrays(np.float32, shapes, elements=entries),
        min_size=1,
    )


def normal(seed: int = 0, scale: float = 1):
    rng = np.random.default_rng(seed)
    shapes = {"w": (5, 4), "b": (5,), "a": (2, 2)}
    return {
        name: (scale * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()
    }


def zeros(like):
    return {name: np.zeros_like(array) for name, array in like.items()}


def flat(params):
    return np.concatenate([params[name].ravel() for name in sorted(params)])


def test_the_largest_entries_of_two_rounds_with_error_feedback():
    """Entries count in the order of the names: a0, a1, b0, b1, whatever the dict's own order."""
    first = {"b": np.array([[3], [0.5]], np.float32), "a": np.array([4, -1], np.float32)}
    sent, memory = top_k(first, 0.25, None)
    assert sent["values"].tolist() == [4]
    assert sent["indices"].tolist() == [0]
    assert memory["a"].tolist() == [0, -1]
    assert memory["b"].tolist() == [[3], [0.5]]

    # With the memory that makes a = 1, -2 and b = 2, 1; of 2 and -2 the earlier goes first.
    second = {"b": np.array([[-1], [0.5]], np.float32), "a": np.array([1, -1], np.float32)}
    sent, memory = top_k(second, 0.25, memory)
    assert sent["values"].tolist() == [-2]
    assert sent["indices"].tolist() == [1]
    assert memory["a"].tolist() == [1, 0]
    assert memory["b"].tolist() == [[2], [1]]
    received = from_sparse(sent, first)
    assert received["a"].tolist() == [0, -2]
    assert received["b"].tolist() == [[0], [0]]


def test_indices_ascend_whatever_the_order_of_sizes():
    sent, _ = top_k({"a": np.array([1, -5, 0, 2, 9], np.float32)}, 0.6, None)
    assert sent["indices"].tolist() == [1, 3, 4]
    assert sent["values"].tolist() == [-5, 2, 9]


@given(update=updates(2.0**100), share=SHARES, seed=SEEDS)
def test_what_is_sent_and_what_is_left_add_up_exactly(update, share, seed):
    rng = np.random.default_rng(seed)
    memory = {name: rng.normal(size=a.shape).astype(np.float32) for name, a in update.items()}
    before = [flat(update).copy(), flat(memory).copy()]
    sent, left = top_k(update, share, memory)
    received = from_sparse(sent, update)
    assert list(received) == list(left) == list(update)
    for name in update:
        assert (received[name] + left[name] == update[name] + memory[name]).all()
        assert received[name].dtype == left[name].dtype == np.float32
    assert np.abs(sent["values"]).min() >= np.abs(flat(left)).max()
    assert not flat(left)[sent["indices"]].any()
    assert (before[0] == flat(update)).all()
    assert (before[1] == flat(memory)).all()


@given(seed=SEEDS, share=SHARES)
def test_what_one_round_leaves_is_sent_in_later_ones(seed, share):
    update = normal(seed)
    total, memory = zeros(update), None
    n_rounds = math.ceil(29 / max(1, round(share * 29)))
    for server_round in range(n_rounds):
        sent, memory = top_k(zeros(update) if server_round else update, share, memory)
        received = from_sparse(sent, update)
        total = {name: total[name] + received[name] for name in total}
    assert (flat(total) == flat(update)).all()
    assert not flat(memory).any()


def test_an_entry_that_is_never_the_largest_of_an_update_has_its_turn():
    """The same update in every round, of which only one entry is sent: the 4, without a memory."""
    update = {"a": np.array([1, 2, 4], np.float32)}
    total, memory, turns = np.zeros(3), None, []
    for _ in range(30):
        sent, memory = top_k(update, 1 / 3, memory)
        turns += sent["indices"].tolist()
        total += from_sparse(sent, update)["a"]
    assert set(turns) == {0, 1, 2}
    # What is left is no more than one round brings.
    assert (total + memory["a"] == [30, 60, 120]).all()
    assert memory["a"].max() <= 7


@pytest.mark.parametrize(("share", "k"), [(1, 29), (0.5, 14), (0.1, 3), (0.01, 1), (1e-9, 1)])
def test_a_share_of_the_entries_takes_eight_bytes_each(share, k):
    sent, _ = top_k(normal(), share, None)
    assert sum(array.nbytes for array in sent.values()) == 8 * k
    assert (sent["values"].dtype, sent["indices"].dtype) == (np.float32, np.int32)


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan")])
def test_a_share_to_send_is_above_zero_and_at_most_one(share):
    with pytest.raises(InputError, match=rf"A share of {share} cannot be sent"):
        top_k(normal(), share, None)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_updates_that_are_not_finite_are_neither_sent_nor_remembered(bad):
    update = normal()
    update["b"][2] = bad
    with pytest.raises(ValueError, match=r"not finite\. Has training diverged"):
        top_k(update, 0.5, None)
    with pytest.raises(ValueError, match=r"not finite\. Has training diverged"):
        top_k(normal(), 0.5, update)


def test_an_update_of_zeros_sends_zeros():
    nothing = zeros(normal())
    sent, memory = top_k(nothing, 0.1, None)
    assert sent["values"].tolist() == [0, 0, 0]
    assert sent["indices"].tolist() == [0, 1, 2]
    assert not flat(memory).any()


def floats(*values):
    return np.array(values, np.float32)


def ints(*values):
    return np.array(values, np.int32)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"values": floats(1)}, "came instead of"),
        ({"values": floats(1), "indices": ints(0), "more": ints(0)}, "came instead of"),
        ({"codes": floats(1), "scales": ints(0)}, "came instead of"),
        ({"values": floats(1).astype(np.float64), "indices": ints(0)}, "'values' came as float64"),
        ({"values": floats(1), "indices": ints(0).astype(np.int64)}, "'indices' came as int64"),
        ({"values": floats([1]), "indices": ints(0)}, "not as a vector of float32"),
        ({"values": floats(1), "indices": np.array(0, np.int32)}, "not as a vector of int32"),
        ({"values": floats(), "indices": ints()}, "0 values came with 0 indices"),
        ({"values": floats(1, 2), "indices": ints(0)}, "2 values came with 1 indices"),
        ({"values": floats(1), "indices": ints(0, 1)}, "1 values came with 2 indices"),
        ({"values": floats(1, np.nan), "indices": ints(0, 1)}, "not finite"),
        ({"values": floats(-np.inf), "indices": ints(0)}, "not finite"),
        ({"values": floats(1, 2), "indices": ints(3, 2)}, "must ascend"),
        ({"values": floats(1, 2), "indices": ints(2, 2)}, "must ascend"),
        ({"values": floats(1, 2), "indices": ints(-1, 2)}, "Indices from -1 to 2 lie outside"),
        ({"values": floats(1), "indices": ints(29)}, "Indices from 29 to 29 lie outside .* of 29"),
        ({"values": floats(*[1] * 30), "indices": ints(*range(30))}, "from 0 to 29 lie outside"),
    ],
)
def test_a_sparse_payload_that_no_encoder_made_is_refused(payload, says):
    with pytest.raises(ValueError, match=says):
        from_sparse(payload, normal())


def test_the_last_index_of_an_update_is_not_refused():
    received = from_sparse({"values": floats(6), "indices": ints(28)}, normal())
    assert received["w"][4, 3] == 6
    assert np.count_nonzero(flat(received)) == 1
