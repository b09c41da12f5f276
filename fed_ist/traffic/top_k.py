"""Sending only the largest entries of an update, the change of the parameters by training.

The other entries are kept and added to the next update: sparsification with error feedback, after
Stich et al., "Sparsified SGD with Memory" (NeurIPS 2018), and Lin et al., "Deep Gradient
Compression" (ICLR 2018). All arrays are laid out as one vector, in the order of their sorted names,
so that a message holds two arrays whatever the model. The decoder raises `ValueError` for anything
that the encoder could not have made, since replies may come from faulty nodes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.layout import Params
from fed_ist.errors import InputError

Payload = dict[str, NDArray[Any]]
ArrayKinds = dict[str, tuple[tuple[int, ...], str]]  # name -> shape, dtype


def top_k(update: Params, share: float, memory: Params | None) -> tuple[Payload, Params]:
    """The largest entries of update + memory, and the others: the memory for the next round.

    update: float32 arrays of any shapes.
    share: of all entries, in (0, 1]; k = max(1, round(share * entries)) are sent.
    memory: what this function returned last, of the same shapes; None in the first round.
    Returns ({"values": float32 (k,), "indices": int32 (k,), ascending}, memory). Of equally large
    entries the earlier is sent first. What is sent and what is left add up to float32
    update + memory, exactly. Raises `InputError` for another share and `ValueError` for entries
    that are not finite. Source: Stich et al. 2018, algorithm 1.
    """
    if not 0 < share <= 1:
        raise InputError(f"A share of {share} cannot be sent: give a number in (0, 1].")
    left = _flatten(update)
    if memory is not None:
        left = left + _flatten(memory)
    k = _count_sent(left.size, share)
    largest = (-np.abs(left)).argsort(kind="stable")[:k]
    indices = np.sort(largest).astype(np.int32)
    sparse: Payload = {"values": left[indices], "indices": indices}
    left[indices] = 0
    return sparse, _unflatten(left, update)


def sparse_shapes(like: Params, share: float) -> ArrayKinds:
    """The arrays that `top_k` makes of an update shaped as `like`: name -> shape, dtype."""
    k = _count_sent(_count_entries(like), share)
    return {"values": ((k,), "float32"), "indices": ((k,), "int32")}


def from_sparse(sparse: Payload, like: Params) -> Params:
    """The update that `top_k` sent: float32 arrays shaped as `like`, zero where nothing was sent.

    Raises `ValueError` for a payload that `top_k` could not have made for `like`.
    """
    _require_arrays(sparse, {"values": np.float32, "indices": np.int32})
    values, indices = sparse["values"], sparse["indices"]
    n_entries = _count_entries(like)
    if not 0 < len(values) == len(indices):
        raise ValueError(f"{len(values)} values came with {len(indices)} indices.")
    if not np.isfinite(values).all():
        raise ValueError("Some values of a sparse update are not finite.")
    if (indices[1:] <= indices[:-1]).any():
        raise ValueError("The indices of a sparse update must ascend.")
    if not 0 <= indices[0] <= indices[-1] < n_entries:
        raise ValueError(
            f"Indices from {indices[0]} to {indices[-1]} lie outside an update of {n_entries}."
        )
    flat = np.zeros(n_entries, dtype=np.float32)
    flat[indices] = values
    return _unflatten(flat, like)


def _count_entries(params: Params) -> int:
    return sum(array.size for array in params.values())


def _count_sent(n_entries: int, share: float) -> int:
    return max(1, round(share * n_entries))


def _flatten(params: Params) -> NDArray[np.float32]:
    """All entries in the order of the sorted names, float32 (n,); a copy."""
    flat = np.concatenate([params[name].ravel() for name in sorted(params)])
    if not np.isfinite(flat).all():
        raise ValueError("Some entries of an update are not finite. Has training diverged?")
    return flat


def _unflatten(flat: NDArray[np.float32], like: Params) -> Params:
    """Arrays shaped as `like`, in its order of names; copies, so that `flat` can be freed."""
    ends = np.cumsum([like[name].size for name in sorted(like)])
    entries = dict(zip(sorted(like), np.split(flat, ends[:-1]), strict=True))
    return {name: entries[name].reshape(array.shape).copy() for name, array in like.items()}


def _require_arrays(payload: Payload, dtypes: dict[str, type[np.generic]]) -> None:
    if set(payload) != set(dtypes):
        raise ValueError(f"A payload of {sorted(payload)} came instead of {sorted(dtypes)}.")
    for name, dtype in dtypes.items():
        array = payload[name]
        if array.dtype != dtype or array.ndim != 1:
            raise ValueError(
                f"'{name}' came as {array.dtype} {array.shape}, not as a vector of "
                f"{np.dtype(dtype)}."
            )
