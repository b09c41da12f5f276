"""Codecs of slices: what they lose is bounded, and foreign bytes are refused."""

import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fed_ist.errors import InputError
from fed_ist.traffic.codecs import (
    CODECS,
    HEADER_BYTES,
    ROTATED,
    VERSION,
    decode,
    encode,
    encoded_bytes,
    shapes_of,
)

SHAPES = {"b": (3,), "a": (2, 5)}
ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)
WITHIN_FP16 = st.floats(-65504, 65504, width=32)
codecs = st.sampled_from(CODECS)
bounded = st.sampled_from([codec for codec in CODECS if codec not in ROTATED])  # each number


def some(numbers=ANY):
    """Arrays of one to three shapes, a vector among them."""
    shape = st.one_of(st.tuples(st.integers(1, 9)), st.tuples(st.integers(1, 5), st.integers(1, 9)))
    array = shape.flatmap(lambda s: arrays(np.float32, s, elements=numbers))
    return st.dictionaries(st.sampled_from(["fc1.weight", "fc1.bias", "x"]), array, min_size=1)


def rng(seed=0):
    return np.random.default_rng(seed)


def back(params, codec, seed=0, compress=False):
    return decode(encode(params, codec, rng(seed), compress), codec, shapes_of(params))


def bound(array, codec):
    """What the docstring of `encode` promises, entry by entry."""
    magnitude = np.abs(array.astype(np.float64))
    if codec == "fp32":
        return np.zeros(array.shape)
    if codec == "fp16":
        return np.maximum(2.0**-11 * magnitude, 2.0**-25)
    if codec == "bf16":
        return np.maximum(2.0**-8 * magnitude, 2.0**-133)
    largest = magnitude.max(axis=-1, keepdims=True)
    steps = 127 if codec == "int8" else 7
    return np.broadcast_to(np.maximum(1.01 * largest / steps, 2.0**-133), array.shape)


@given(params=some(WITHIN_FP16), codec=bounded, seed=st.integers(0, 9), compress=st.booleans())
def test_no_number_is_further_off_than_its_codec_promises(params, codec, seed, compress):
    found = back(params, codec, seed, compress)
    assert {name: array.shape for name, array in found.items()} == shapes_of(params)
    for name, array in params.items():
        off = np.abs(found[name].astype(np.float64) - array)
        assert (off <= bound(array, codec)).all()


@given(params=some(), codec=st.sampled_from(["fp32", "bf16", "int8", "int4"]))
def test_the_bound_holds_up_to_the_largest_numbers_there_are(params, codec):
    for name, array in back(params, codec).items():
        off = np.abs(array.astype(np.float64) - params[name])
        assert (off <= bound(params[name], codec)).all()


@given(params=some())
def test_fp32_is_exact(params):
    found = back(params, "fp32", compress=True)
    assert all(found[name].tobytes() == params[name].tobytes() for name in params)


@pytest.mark.parametrize("codec", ["int8", "int4"])
def test_rounding_at_random_is_right_on_the_average(codec):
    row = np.linspace(-1, 1, 41, dtype=np.float32)[None]
    drawn = np.stack([back({"a": row}, codec, seed)["a"] for seed in range(2000)])
    step = 1 / (127 if codec == "int8" else 7)
    assert np.abs(drawn.mean(axis=0) - row).max() < 5 * step / 2 / math.sqrt(2000)
    assert np.abs(drawn - row).max() > step / 4  # or it would not have been random


@pytest.mark.parametrize("codec", ["int8", "int4"])
def test_each_row_has_a_step_of_its_own(codec):
    """A row a million times as large does not drown a small one, and zeros stay zeros."""
    rows = np.array([[1e6, -1e6], [1, -1], [0, 0]], dtype=np.float32)
    found = back({"a": rows}, codec)["a"]
    assert (np.abs(found - rows) <= bound(rows, codec)).all()
    assert (found[1] != 0).all()
    assert (found[2] == 0).all()


@given(params=some(WITHIN_FP16), codec=codecs)
def test_bytes_are_as_many_as_foretold_and_compression_never_adds_any(params, codec):
    plain = encode(params, codec, rng())
    assert len(plain) == encoded_bytes(shapes_of(params), codec)
    assert len(encode(params, codec, rng(), compress=True)) <= len(plain)


def test_bytes_of_a_slice_counted_by_hand():
    """13 numbers in three rows (two of "a", one of "b")."""
    counts = {codec: encoded_bytes(SHAPES, codec) - HEADER_BYTES for codec in CODECS}
    assert counts == {
        "fp32": 52,
        "fp16": 26,
        "bf16": 26,
        "int8": 6 + 13,
        "int4": 6 + 7,
        "eden2": 8 + 4,
        "eden1": 8 + 2,
    }


def test_one_seed_gives_the_same_bytes_and_another_others():
    params = {"a": rng(1).normal(size=(8, 16)).astype(np.float32)}
    assert encode(params, "int4", rng(2)) == encode(params, "int4", rng(2))
    assert encode(params, "int4", rng(2)) != encode(params, "int4", rng(3))


def test_compression_wins_where_numbers_are_alike():
    params = {"a": rng(1).normal(size=(128, 192)).astype(np.float32)}
    sizes = {c: len(encode(params, c, rng(), True)) / len(encode(params, c, rng())) for c in CODECS}
    assert all(sizes[codec] < 0.97 or codec in ROTATED for codec in CODECS), sizes
    for codec in CODECS:
        assert (back(params, codec, 0, True)["a"] == back(params, codec)["a"]).all()


# --- what is refused ---------------------------------------------------------------------------


def usual():
    return {name: rng(5).normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def sealed(kind, body, version=VERSION):
    """Foreign bytes with a header in order."""
    return bytes([version, kind]) + zlib.crc32(body).to_bytes(4, "little") + body


@given(data=st.binary(max_size=80), codec=codecs)
def test_foreign_bytes_are_refused_or_numbers_of_the_right_shapes(data, codec):
    try:
        found = decode(data, codec, SHAPES)
    except ValueError:
        return
    assert shapes_of(found) == SHAPES
    assert all(np.isfinite(array).all() for array in found.values())


@given(codec=codecs, compress=st.booleans(), at=st.integers(0, 200), flip=st.integers(1, 255))
def test_a_damaged_byte_anywhere_is_noticed(codec, compress, at, flip):
    data = bytearray(encode({"a": np.zeros((2, 50), np.float32)}, codec, rng(), compress))
    data[at % len(data)] ^= flip
    with pytest.raises(ValueError, match=r"^(it|its|what it) "):
        decode(bytes(data), codec, {"a": (2, 50)})


@pytest.mark.parametrize("codec", CODECS)
def test_what_was_cut_short_or_grew_is_refused(codec):
    data = encode(usual(), codec, rng())
    for wrong in (data[:-1], data + b"\0", data[:3], b""):
        with pytest.raises(ValueError, match=r"bytes|version"):
            decode(wrong, codec, SHAPES)


def test_another_codec_version_or_shape_is_refused():
    data = encode(usual(), "int8", rng())
    with pytest.raises(ValueError, match="not in int4"):
        decode(data, "int4", SHAPES)
    with pytest.raises(ValueError, match="version 1"):
        decode(b"\x02" + data[1:], "int8", SHAPES)
    with pytest.raises(ValueError, match="where there should be"):
        decode(data, "int8", {"a": (2, 5)})


def test_numbers_that_are_not_finite_are_refused_both_ways():
    bad = {"a": np.array([[1, np.nan]], dtype=np.float32)}
    for codec in CODECS:
        with pytest.raises(InputError, match="not finite"):
            encode(bad, codec, rng())
    for kind, number in ((0, "<f4"), (1, "<f2")):
        body = np.array([1, np.inf], dtype=number).tobytes()
        with pytest.raises(ValueError, match="not finite"):
            decode(sealed(kind, body), CODECS[kind], {"a": (2,)})
    with pytest.raises(InputError, match="beyond 65504"):
        encode({"a": np.array([7e4], dtype=np.float32)}, "fp16", rng())


@pytest.mark.parametrize("step", [0x7F80, 0xFF80, 0x7FC0, 0xBF80])
def test_steps_that_cannot_be_are_refused(step):
    """Infinity, its negative, NaN, and -1."""
    body = np.array([step], dtype="<u2").tobytes() + bytes([127, 127])
    with pytest.raises(ValueError, match="steps are negative or not finite"):
        decode(sealed(3, body), "int8", {"a": (2,)})


def test_codes_that_cannot_be_are_refused():
    one = np.array([0x3F80], dtype="<u2").tobytes()
    with pytest.raises(ValueError, match="a code of 255"):
        decode(sealed(3, one + bytes([255])), "int8", {"a": (1,)})
    with pytest.raises(ValueError, match="a code of 15"):
        decode(sealed(4, one + bytes([0x0F])), "int4", {"a": (1,)})
    with pytest.raises(ValueError, match="last half byte"):
        decode(sealed(4, one + bytes([0x77])), "int4", {"a": (1,)})


def test_what_would_fill_the_memory_is_refused_before_it_is_unpacked():
    import zstandard

    bomb = zstandard.ZstdCompressor().compress(bytes(10_000_000))
    with pytest.raises(ValueError, match="not 4000000 bytes long"):
        decode(sealed(16, bomb), "fp32", {"a": (1_000_000,)})
    unsaid = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(4000))
    with pytest.raises(ValueError, match="not 4000 bytes long"):
        decode(sealed(16, unsaid), "fp32", {"a": (1000,)})
