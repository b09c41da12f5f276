"""Fewer bytes for an update, the difference of parameters that a node sends back.

`top_k` sends the few largest entries and keeps the rest for the next round: sparsification with
error feedback, after Stich et al., "Sparsified SGD with Memory" (NeurIPS 2018), and Lin et al.,
"Deep Gradient Compression" (ICLR 2018). `quantise` sends every entry in 4 or 8 bits, rounded at
random so that the mean is right: QSGD (Alistarh et al., NeurIPS 2017) as FedPAQ uses it
(Reisizadeh et al., AISTATS 2020), scaled by the largest entry instead of the norm.

Both lay all arrays out as one vector, in the order of their sorted names, so that a message holds
two arrays whatever the model. Decoders raise `ValueError` for anything that the encoder could not
have made, since replies come from nodes that nobody vouches for.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.errors import InputError
from fed_ist.heads import Params

Payload = dict[str, NDArray[Any]]
Shapes = dict[str, tuple[tuple[int, ...], str]]


def top_k(update: Params, share: float, memory: Params | None) -> tuple[Payload, Params]:
    """The largest entries of update + memory, and what is left of it: the next round's memory.

    share: of all entries, in (0, 1]; k = max(1, round(share * entries)) are sent.
    memory: what this function returned last; None in the first round.
    Returns ({"values": float32 (k,), "indices": int32 (k,), ascending}, memory). Of equally large
    entries the earlier goes first. What is sent and what is left add up to float32 update + memory,
    exactly. Raises `InputError` for another share and `ValueError` for entries that are not finite.
    Source: Stich et al. 2018, algorithm 1.
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


def sparse_shapes(like: Params, share: float) -> Shapes:
    """What arrays `top_k` makes of an update shaped as `like`: name -> shape, dtype."""
    k = _count_sent(_count_entries(like), share)
    return {"values": ((k,), "float32"), "indices": ((k,), "int32")}


def from_sparse(sparse: Payload, like: Params) -> Params:
    """The update that `top_k` sent: its entries in arrays shaped as `like`, zero elsewhere.

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


def quantise(update: Params, bits: int, rng: np.random.Generator) -> Payload:
    """Every entry as a whole number of steps, rounded up or down at random, unbiased.

    bits: 4 or 8, for s = 7 or 127 steps each side of zero. A step of an array is its largest
    magnitude / s, so each entry is off by less than a step.
    Returns {"codes": uint8 (n,), or (ceil(n / 2),) for 4 bits, two to a byte, the earlier in the
    low half; "scales": float32, the step of each array}. Raises `InputError` for other bits and
    `ValueError` for entries that are not finite. Source: Alistarh et al. 2017, section 3.1.
    """
    n_steps = _steps(bits)
    names = sorted(update)
    scales = np.array([_step(update[name], n_steps) for name in names], dtype=np.float32)
    # A scale of 0 belongs to zeros alone: any other divisor does.
    divisors = np.where(scales > 0, scales, 1).astype(np.float64)
    steps = _flatten(update) / np.repeat(divisors, [update[name].size for name in names])
    # Compared, not added: 127 and a draw just below 1 would add up to 128 in float64.
    below = np.floor(steps)
    up = rng.random(steps.size) < steps - below
    codes = (below + up + n_steps).astype(np.uint8)
    return {"codes": _pack_halves(codes) if bits == 4 else codes, "scales": scales}


def quantised_shapes(like: Params, bits: int) -> Shapes:
    """What arrays `quantise` makes of an update shaped as `like`: name -> shape, dtype."""
    n_bytes = -(-_count_entries(like) * bits // 8)
    return {"codes": ((n_bytes,), "uint8"), "scales": ((len(like),), "float32")}


def dequantise(payload: Payload, bits: int, like: Params) -> Params:
    """The update that `quantise` sent, in arrays shaped as `like`.

    Raises `ValueError` for a payload that `quantise` could not have made for `like`.
    """
    n_steps = _steps(bits)
    _require_arrays(payload, {"codes": np.uint8, "scales": np.float32})
    codes, scales = payload["codes"], payload["scales"]
    sizes = [like[name].size for name in sorted(like)]
    n_bytes = -(-sum(sizes) * bits // 8)
    if len(codes) != n_bytes or len(scales) != len(sizes):
        raise ValueError(
            f"{len(codes)} bytes of codes and {len(scales)} scales came, where {n_bytes} and "
            f"{len(sizes)} are needed."
        )
    if not (np.isfinite(scales).all() and (scales >= 0).all()):
        raise ValueError("The scales of a quantised update must be finite and not negative.")
    if bits == 4:
        codes = _unpack_halves(codes)[: sum(sizes)]
    if codes.max(initial=0) > 2 * n_steps:
        raise ValueError(f"A code of {codes.max()} is larger than {2 * n_steps}.")
    steps = codes.astype(np.float64) - n_steps
    # A scale near float32's largest number, from a hostile node, may overflow in the product.
    flat = steps * np.repeat(scales.astype(np.float64), sizes)
    largest = float(np.finfo(np.float32).max)
    return _unflatten(flat.clip(-largest, largest).astype(np.float32), like)


def _count_entries(params: Params) -> int:
    return sum(array.size for array in params.values())


def _count_sent(n_entries: int, share: float) -> int:
    return max(1, round(share * n_entries))


def _step(array: NDArray[np.float32], n_steps: int) -> np.float32:
    """The smallest float32 of which `n_steps` reach the largest entry, lest that be cut off."""
    largest = float(np.abs(array).max(initial=0))
    scale = np.float32(largest / n_steps)
    if float(scale) * n_steps < largest:
        scale = np.nextafter(scale, np.float32(np.inf))
    return scale


def _steps(bits: int) -> int:
    if bits not in (4, 8):
        raise InputError(f"An update cannot be quantised to {bits} bits. Choose from: 4, 8.")
    return int(2 ** (bits - 1) - 1)


def _pack_halves(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    pairs = np.zeros((-(-len(codes) // 2), 2), dtype=np.uint8)
    pairs.ravel()[: len(codes)] = codes
    packed: NDArray[np.uint8] = pairs[:, 0] | (pairs[:, 1] << np.uint8(4))
    return packed


def _unpack_halves(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([packed & 15, packed >> 4], axis=1).ravel()


def _flatten(params: Params) -> NDArray[np.float32]:
    """All entries, in the order of the sorted names; a copy."""
    flat = np.concatenate([params[name].ravel() for name in sorted(params)])
    if not np.isfinite(flat).all():
        raise ValueError("Some entries of an update are not finite. Has training diverged?")
    return flat


def _unflatten(flat: NDArray[np.float32], like: Params) -> Params:
    """Arrays shaped as `like`, in its order of names; copies, so that none keeps `flat` alive."""
    ends = np.cumsum([like[name].size for name in sorted(like)])
    parts = dict(zip(sorted(like), np.split(flat, ends[:-1]), strict=True))
    return {name: parts[name].reshape(array.shape).copy() for name, array in like.items()}


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
