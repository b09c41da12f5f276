"""Numbers in one or two bits each, after a random rotation (`eden1` and `eden2` of `codecs`).

Rotated at random, any vector has entries that look drawn from a normal distribution, so that a
few levels serve all of them: with one bit the sign, with two the four levels that are best for a
normal distribution. One scale for the whole vector makes the error orthogonal to the vector: what
comes back is the vector itself and something at right angles to it, so that its mean over rotations
is right. Averaged over rotations the error's square is 0.57 times the vector's with one bit, and
0.13 with two. Source: Vargaftik et al., "DRIVE: One-bit Distributed Mean Estimation", NeurIPS 2021,
and "EDEN", ICML 2022, there with rotations that need lengths of a power of two.

The rotation is ours for any length: random signs and a Hadamard transform of as many of the first
entries as are a power of two, and then of as many of the last. Both sides draw the signs from a
seed that travels along.

    bytes 0-3   the seed, little-endian
    bytes 4-7   the scale, float32
    then        the levels of all entries, 1 or 2 bits each, the first in the lowest bits
"""

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]

BEGIN_BYTES = 8
LARGEST = float(np.finfo(np.float32).max)
# Above zero; those below mirror them. Of a normal distribution of deviation 1, rounded to its mean
# within each of 2 or 4 ranges (Lloyd 1982, Max 1960).
LEVELS = {1: (0.7978846,), 2: (0.4527800, 1.5104176)}


def rotated_bytes(n: int, bits: int) -> int:
    """The number of bytes that `quantise` makes of `n` numbers."""
    return BEGIN_BYTES + -(-n * bits // 8)


def quantise(values: Floats, bits: int, rng: np.random.Generator) -> bytes:
    """The bytes of numbers. values: float32 (n,), finite. bits: of each, 1 or 2."""
    seed = int(rng.integers(2**32))
    largest = float(np.abs(values).max(initial=0))
    unit = values.astype(np.float64) / (largest or 1)  # so that squares neither vanish nor overflow
    turned = rotate(unit, seed)
    levels = _levels(bits)
    deviation = np.sqrt(np.mean(turned**2)) if len(turned) else 0.0
    codes = np.searchsorted((levels[1:] + levels[:-1]) / 2 * deviation, turned).astype(np.uint8)
    along = float(turned @ levels[codes])
    scale = largest * float(turned @ turned) / along if along else 0.0
    begin = np.array([seed], "<u4").tobytes() + np.array([min(scale, LARGEST)], "<f4").tobytes()
    return begin + _pack(codes, bits)


def dequantise(body: bytes, n: int, bits: int) -> Floats:
    """The numbers of which `quantise` made these bytes, float32 (n,).

    Raises `ValueError` for a scale that is negative or not finite, and for bits after the last.
    """
    seed = int.from_bytes(body[:4], "little")
    scale = float(np.frombuffer(body, "<f4", 1, offset=4)[0])
    if not np.isfinite(scale) or np.signbit(scale):
        raise ValueError("its scale is negative or not finite")
    codes = _unpack(np.frombuffer(body, np.uint8, offset=BEGIN_BYTES), bits)
    if codes[n:].any():
        raise ValueError("there is something in its last byte, after the last number")
    exact = rotate(_levels(bits)[codes[:n]], seed, back=True) * scale
    return exact.clip(-LARGEST, LARGEST).astype(np.float32)


def rotate(values: Doubles, seed: int, *, back: bool = False) -> Doubles:
    """A rotation that looks uniformly random, of float64 (n,), or the one that undoes it."""
    n = len(values)
    length = 1 << (n.bit_length() - 1) if n else 0
    signs = _signs(seed, n)
    turned = values.copy()
    parts = ((signs[0], slice(0, length)), (signs[1], slice(n - length, n)))
    for sign, part in reversed(parts) if back else parts:
        if back:
            turned[part] = _hadamard(turned[part])
        turned *= sign
        if not back:
            turned[part] = _hadamard(turned[part])
    return turned


def _hadamard(values: Doubles) -> Doubles:
    """The orthonormal Walsh-Hadamard transform, which is its own inverse. values: (2^k,)."""
    n, half = len(values), 1
    while half < n:
        pairs = values.reshape(-1, 2, half)
        values = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).ravel()
        half *= 2
    return values / np.sqrt(max(n, 1))


def _signs(seed: int, n: int) -> Doubles:
    """1 or -1 at random, float64 (2, n).

    From the raw bits of a generator, as only these are the same in all versions of numpy.
    """
    words = np.random.Philox(seed).random_raw(-(-2 * n // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), count=2 * n, bitorder="little")
    return (1.0 - 2.0 * bits).reshape(2, n)


def _levels(bits: int) -> Doubles:
    above = np.array(LEVELS[bits])
    return np.concatenate([-above[::-1], above])


def _pack(codes: NDArray[np.uint8], bits: int) -> bytes:
    split = codes[:, None] >> np.arange(bits, dtype=np.uint8) & 1
    return np.packbits(split, bitorder="little").tobytes()


def _unpack(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    split = np.unpackbits(packed, bitorder="little").reshape(-1, bits)
    codes: NDArray[np.uint8] = (split << np.arange(bits, dtype=np.uint8)).sum(1, dtype=np.uint8)
    return codes
