"""Numbers in one or two bits each, after a random rotation (`eden1` and `eden2` of `codecs`).

Rotated at random, any vector has entries that look drawn from a normal distribution, so that a
few levels serve all of them: with one bit the sign, with two the four levels that are best for a
normal distribution. One scale for the whole vector makes the error orthogonal to the vector: what
comes back is the vector itself and something at right angles to it, so that its mean over rotations
is right. Averaged over rotations the error's square is 0.57 times the vector's with one bit, and
0.13 with two. Source: Vargaftik et al., "DRIVE: One-bit Distributed Mean Estimation", NeurIPS 2021,
and "EDEN", ICML 2022, there with rotations that need lengths of a power of two.

The rotation is twice random signs and a Hartley transform, which is orthogonal for any length. Both
sides draw the signs from a seed that travels along.

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
    first, second = _signs(seed, len(values))
    if back:
        undone: Doubles = first * _hartley(second * _hartley(values))
        return undone
    turned: Doubles = _hartley(second * _hartley(first * values))
    return turned


def _hartley(values: Doubles) -> Doubles:
    """The orthonormal Hartley transform, which is its own inverse for any length: float64 (n,)."""
    spectrum = np.fft.fft(values, norm="ortho")
    transformed: Doubles = spectrum.real - spectrum.imag
    return transformed


def _signs(seed: int, n: int) -> Doubles:
    """1 or -1 at random, float64 (2, n).

    From the raw bits of a generator, as only these are the same in all versions of numpy.
    """
    words = np.random.Philox(seed).random_raw(-(-2 * n // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), count=2 * n, bitorder="little")
    signs: Doubles = np.where(bits, -1.0, 1.0).reshape(2, n)
    return signs


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
