"""Several numbers in one option."""

import pytest

from fed_ist.cli.numbers import one_for_each, whole_numbers
from fed_ist.errors import InputError


def test_one_number_is_for_all_and_as_many_as_data_sets_are_for_each():
    assert one_for_each("--views", "3", 2) == (3, 3)
    assert one_for_each("--views", "3,4", 2) == (3, 4)
    with pytest.raises(InputError, match="--views has 3 numbers for 2 data sets"):
        one_for_each("--views", "3,4,5", 2)


@pytest.mark.parametrize("text", ["", ",", "x", "-1", "1.5", "0,2", "²", "9" * 19, "9" * 5000])
def test_what_is_no_whole_number_or_too_large_for_one_is_refused(text):
    with pytest.raises(InputError, match="is not possible: give whole numbers from 1 on, such as"):
        whole_numbers("--views", text)


def test_a_number_above_the_most_is_refused():
    with pytest.raises(InputError, match="--views '1,1001' is not possible: give 1000 at most"):
        one_for_each("--views", "1,1001", 2, most=1000)
