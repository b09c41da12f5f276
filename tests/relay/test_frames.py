"""What the relays say to each other, and what they make of anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.relay.frames import (
    MAX_FRAME,
    MAX_PARTS,
    Kind,
    UnreadableFrameError,
    number,
    pack,
    pairs,
    text,
    unpack,
)

kinds = st.sampled_from(Kind)


@given(kinds, st.lists(st.binary(max_size=50), max_size=20))
def test_a_frame_is_read_as_it_was_packed(kind, parts):
    assert unpack(pack(kind, parts)) == (kind, parts)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_in_one_way_or_none(data):
    try:
        kind, parts = unpack(data)
    except UnreadableFrameError:
        return
    assert pack(kind, parts) == data


@given(kinds, st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=5), st.data())
def test_a_frame_that_was_cut_is_no_frame(kind, parts, data):
    frame = pack(kind, parts)
    whole = {1 + sum(4 + len(part) for part in parts[:n]) for n in range(len(parts) + 1)}
    length = data.draw(st.integers(1, len(frame) - 1).filter(lambda n: n not in whole))
    with pytest.raises(UnreadableFrameError):
        unpack(frame[:length])


@pytest.mark.parametrize("nothing", ["text", "", b"", b"\x00", b"\xff"])
def test_text_and_unknown_kinds_are_no_frames(nothing):
    with pytest.raises(UnreadableFrameError):
        unpack(nothing)


def test_nothing_is_packed_that_nobody_would_take():
    with pytest.raises(UnreadableFrameError, match="allowed"):
        pack(Kind.REPLY, [bytes(MAX_FRAME)])
    with pytest.raises(UnreadableFrameError, match="allowed"):
        pack(Kind.REPLY, [b""] * (MAX_PARTS + 1))
    with pytest.raises(UnreadableFrameError):
        unpack(bytes([Kind.REPLY]) + bytes(4 * (MAX_PARTS + 1)))


def test_ids_numbers_and_objects_are_what_they_should_be():
    assert text(b"0af9") == "0af9" and number(b"200") == 200
    assert pairs([b"a1", b"x", b"b2", b""], Kind.MESSAGE) == [("a1", b"x"), ("b2", b"")]
    for wrong in (b"", b"a b", b"../x", bytes(3), b"1" * 129):
        with pytest.raises(UnreadableFrameError):
            text(wrong)
    for wrong in (b"", b"-1", b"1e3", b"9" * 21):
        with pytest.raises(UnreadableFrameError):
            number(wrong)
    with pytest.raises(UnreadableFrameError, match="without its content"):
        pairs([b"a1"], Kind.MESSAGE)
