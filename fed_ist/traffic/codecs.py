"""How the numbers of a slice are sent: 32, 16, 8, 4, 2 or 1 bits each, in one string of bytes.

`fp32` is exact. `fp16` and `bf16` round to the nearest. `int8` and `int4` send whole multiples of a
step, with one step for each row of a matrix, rounded up or down at random so that the mean is
right: stochastic rounding as in QSGD (Alistarh et al., NeurIPS 2017), with a scale for each row
instead of the norm. `eden2` and `eden1` rotate all numbers together and keep 2 bits or the sign of
each, see `fed_ist.traffic.rotated`. Names and shapes are not sent, since both sides know them.

Bytes from a peer are checked before they are used: `decode` raises `ValueError` for bytes that
`encode` could not have made for these shapes and this codec.

    byte 0      VERSION
    byte 1      the codec's place in CODECS, +16 if the body is compressed
    bytes 2-5   CRC-32 of the body, little-endian
    then        the body: the arrays by ascending name, little-endian. Of `int8` and `int4` first
                the steps of all rows (bfloat16), then the codes (of `int4` two in a byte, the
                earlier one in the low half); of `eden1` and `eden2` what `rotated` says
"""

import math
import zlib
from collections.abc import Mapping

import numpy as np
import zstandard
from numpy.typing import NDArray

from fed_ist.classifier.layout import Params
from fed_ist.errors import InputError
from fed_ist.traffic.rotated import dequantise, quantise, rotated_bytes

VERSION = 1
CODECS = ("fp32", "fp16", "bf16", "int8", "int4", "eden2", "eden1")
COMPRESSED = 16
HEADER_BYTES = 6
ZSTD_LEVEL = 9
NUMBER_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
STEPS = {"int8": 127, "int4": 7}  # on each side of zero
ROTATED = {"eden2": 2, "eden1": 1}  # bits of a number
DRAWN = (*STEPS, *ROTATED)  # what draws from `rng`, so that the same numbers become other bytes
LARGEST = float(np.finfo(np.float32).max)

Shapes = Mapping[str, tuple[int, ...]]
Bytes = NDArray[np.uint8]
Halves = NDArray[np.uint16]
Floats = NDArray[np.float32]


def encode(arrays: Params, codec: str, rng: np.random.Generator, compress: bool = False) -> bytes:
    """The bytes of arrays, float32 of any shapes.

    The error of a number x is at most: nothing in fp32; 2^-11 |x| in fp16, or 2^-25 if that is
    more; 2^-8 |x| in bf16, or 2^-133; 1.01 M / 127 in int8 and 1.01 M / 7 in int4, or 2^-133, where
    M is the largest magnitude in its row. In eden2 and eden1 the error is orthogonal to all numbers
    together, and its square is at most n - 1 times theirs, where n is how many they are.
    rng: for random rounding and rotations; only the codecs in `DRAWN` draw from it.
    compress: whether to compress with zstandard, if that makes them fewer.
    Raises `InputError` for numbers that are not finite, or are beyond fp16's 65504.
    """
    values = _flat(arrays)
    if not np.isfinite(values).all():
        raise InputError("Some numbers to be sent are not finite. Has training diverged?")
    if codec in STEPS:
        body = _quantise(values, _row_lengths(shapes_of(arrays)), STEPS[codec], rng)
    elif codec in ROTATED:
        body = quantise(values, ROTATED[codec], rng)
    elif codec == "fp16":
        if (np.abs(values) > float(np.finfo(np.float16).max)).any():
            raise InputError("Some numbers to be sent are beyond 65504, fp16's largest: use bf16.")
        body = values.astype("<f2").tobytes()
    elif codec == "bf16":
        body = _to_bf16(values).tobytes()
    else:
        assert codec == "fp32", codec
        body = values.astype("<f4").tobytes()
    kind = CODECS.index(codec)
    if compress:
        packed = zstandard.ZstdCompressor(ZSTD_LEVEL).compress(_planes(body, codec))
        if len(packed) < len(body):
            body, kind = packed, kind + COMPRESSED
    return bytes([VERSION, kind]) + zlib.crc32(body).to_bytes(4, "little") + body


def decode(data: bytes, codec: str, shapes: Shapes) -> Params:
    """The arrays of which `encode` made these bytes, float32 of these shapes.

    Raises `ValueError` for bytes of another version, codec or length, for damaged bytes, and for
    numbers that are not finite.
    """
    body = _open(data, codec, encoded_bytes(shapes, codec) - HEADER_BYTES)
    if codec in STEPS:
        values = _dequantise(body, _row_lengths(shapes), STEPS[codec])
    elif codec in ROTATED:
        n = sum(math.prod(shape) for shape in shapes.values())
        values = dequantise(body, n, ROTATED[codec])
    elif codec == "bf16":
        values = _from_bf16(np.frombuffer(body, "<u2"))
    else:
        values = np.frombuffer(body, "<f2" if codec == "fp16" else "<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("some of its numbers are not finite")
    ends = np.cumsum([math.prod(shapes[name]) for name in sorted(shapes)])
    flat = dict(zip(sorted(shapes), np.split(values, ends[:-1]), strict=True))
    return {name: flat[name].reshape(shape).copy() for name, shape in shapes.items()}


def encoded_bytes(shapes: Shapes, codec: str) -> int:
    """The number of bytes that `encode` makes of arrays of these shapes, without `compress`."""
    n = sum(math.prod(shape) for shape in shapes.values())
    if codec in NUMBER_BYTES:
        return HEADER_BYTES + NUMBER_BYTES[codec] * n
    if codec in ROTATED:
        return HEADER_BYTES + rotated_bytes(n, ROTATED[codec])
    n_codes = n if codec == "int8" else -(-n // 2)
    n_rows = sum(math.prod(shape[:-1]) for shape in shapes.values())
    return HEADER_BYTES + 2 * n_rows + n_codes


def shapes_of(arrays: Params) -> dict[str, tuple[int, ...]]:
    """The shape of each array, by its name."""
    return {name: array.shape for name, array in arrays.items()}


def _open(data: bytes, codec: str, n_bytes: int) -> bytes:
    """The body without compression; raises `ValueError` unless it has `n_bytes` and is whole."""
    if len(data) < HEADER_BYTES or data[0] != VERSION:
        raise ValueError(f"it does not begin with version {VERSION} of the slice format")
    kind, is_compressed = data[1] % COMPRESSED, data[1] >= COMPRESSED
    if data[1] >= 2 * COMPRESSED or kind >= len(CODECS) or CODECS[kind] != codec:
        raise ValueError(f"it is of kind {data[1]}, not in {codec}")
    body = data[HEADER_BYTES:]
    if len(body) > n_bytes or (len(body) < n_bytes and not is_compressed):
        raise ValueError(f"it has {len(body)} bytes where there should be {n_bytes}")
    if zlib.crc32(body) != int.from_bytes(data[2:HEADER_BYTES], "little"):
        raise ValueError("its checksum is wrong")
    if not is_compressed:
        return body
    try:
        # Checked first: a few bytes may claim, and become, more than the memory holds.
        if zstandard.get_frame_parameters(body).content_size != n_bytes:
            raise ValueError(f"what it holds is not {n_bytes} bytes long")
        planes = zstandard.ZstdDecompressor().decompress(body, max_output_size=n_bytes)
    except zstandard.ZstdError as error:
        raise ValueError(f"it cannot be decompressed: {error}") from None
    if len(planes) != n_bytes:
        raise ValueError(f"it holds {len(planes)} bytes, not {n_bytes}")
    width = NUMBER_BYTES.get(codec, 1)
    return np.frombuffer(planes, np.uint8).reshape(width, -1).T.tobytes()


def _planes(body: bytes, codec: str) -> bytes:
    """The first bytes of all numbers, then the second bytes, and so on.

    This compresses better, since the bytes with the exponents are similar.
    """
    width = NUMBER_BYTES.get(codec, 1)
    return np.frombuffer(body, np.uint8).reshape(-1, width).T.tobytes()


def _flat(arrays: Params) -> Floats:
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


def _row_lengths(shapes: Shapes) -> NDArray[np.int64]:
    """The number of entries in each row of each array, int64; a vector is one row."""
    lengths: list[int] = []
    for name in sorted(shapes):
        *rows, length = shapes[name]
        lengths += [length] * math.prod(rows)
    return np.array(lengths, dtype=np.int64)


def _to_bf16(values: Floats) -> Halves:
    """Numbers rounded to bfloat16, ties to even; the largest number stands for infinity."""
    bits = values.astype("<f4").view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    is_infinite = (rounded & 0x7FFF) == 0x7F80
    halves: Halves = (rounded - is_infinite).astype("<u2")
    return halves


def _from_bf16(halves: Halves) -> Floats:
    values: Floats = (halves.astype("<u4") << 16).view("<f4").astype(np.float32)
    return values


def _quantise(
    values: Floats, row_lengths: NDArray[np.int64], n_steps: int, rng: np.random.Generator
) -> bytes:
    starts = np.cumsum(row_lengths) - row_lengths
    largest = np.maximum.reduceat(np.abs(values), starts).astype(np.float64)
    halves = _step_up(largest / n_steps)
    steps = np.repeat(_from_bf16(halves).astype(np.float64), row_lengths)
    places = values / np.where(steps > 0, steps, 1)  # a step of 0 belongs to zeros alone
    # Compared, not added: 127 and a draw just below 1 would add up to 128 in float64.
    below = np.floor(places)
    up = rng.random(places.size) < places - below
    codes = np.minimum(below + up + n_steps, 2 * n_steps).astype(np.uint8)
    return halves.tobytes() + (codes if n_steps > 7 else _pack_halves(codes)).tobytes()


def _dequantise(body: bytes, row_lengths: NDArray[np.int64], n_steps: int) -> Floats:
    halves = np.frombuffer(body, "<u2", len(row_lengths))
    codes = np.frombuffer(body, np.uint8, offset=halves.nbytes)
    if n_steps <= 7:
        codes = _unpack_halves(codes)
        if codes[row_lengths.sum() :].any():
            raise ValueError("there is something in its last half byte")
        codes = codes[: row_lengths.sum()]
    steps = _from_bf16(halves)
    if not np.isfinite(steps).all() or np.signbit(steps).any():
        raise ValueError("some of its steps are negative or not finite")
    if codes.max(initial=0) > 2 * n_steps:
        raise ValueError(f"it has a code of {codes.max()}, above {2 * n_steps}")
    places = codes.astype(np.float64) - n_steps
    exact = places * np.repeat(steps.astype(np.float64), row_lengths)
    return exact.clip(-LARGEST, LARGEST).astype(np.float32)


def _step_up(steps: NDArray[np.float64]) -> Halves:
    """The smallest bfloat16 that is no smaller than each step.

    A smaller step would cut off the largest number of its row.
    """
    nearest = steps.astype(np.float32)
    below = nearest.astype(np.float64) < steps
    upper = np.where(below, np.nextafter(nearest, np.float32(np.inf)), nearest)
    halves: Halves = ((upper.astype("<f4").view("<u4") + 0xFFFF) >> 16).astype("<u2")
    return halves


def _pack_halves(codes: Bytes) -> Bytes:
    pairs = np.zeros((-(-len(codes) // 2), 2), dtype=np.uint8)
    pairs.ravel()[: len(codes)] = codes
    packed: Bytes = pairs[:, 0] | (pairs[:, 1] << np.uint8(4))
    return packed


def _unpack_halves(packed: Bytes) -> Bytes:
    return np.stack([packed & 15, packed >> 4], axis=1).ravel()
