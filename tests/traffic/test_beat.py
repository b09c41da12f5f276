"""When rounds begin that have a beat."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.traffic.beat import until_beat_s

seconds = st.integers(0, 4_000_000_000)


@given(seconds, st.integers(1, 10_000_000))
def test_the_next_beat_is_a_multiple_and_none_lies_before_it(now_s, every_s):
    left_s = until_beat_s(now_s, every_s)
    assert 0 <= left_s < every_s
    assert (now_s + left_s) % every_s == 0


def test_an_hourly_beat_is_at_full_hours():
    ten_past = 1_764_547_200.0 + 600  # 2025-12-01 00:10 UTC
    assert until_beat_s(ten_past, 3600.0) == pytest.approx(3000)
