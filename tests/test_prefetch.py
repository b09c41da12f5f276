"""Work ahead keeps its order, its bounds and its errors."""

import threading
import time

import pytest
from conftest import HANG_S

from fed_ist.prefetch import ahead, mapped


def test_results_come_in_the_order_of_the_items():
    def work(i: int) -> int:
        time.sleep(0.001 * (7 - i % 7))
        return i * i

    assert list(mapped(work, range(200))) == [i * i for i in range(200)]
    assert list(ahead(iter(range(50)))) == list(range(50))


def test_no_more_is_made_than_may_wait():
    made = []
    found = mapped(lambda i: made.append(i), range(1000), n_ahead=8)
    next(found)
    time.sleep(0.05)
    assert len(made) <= 9
    found.close()

    def items():
        for i in range(1000):
            made.append(i)
            yield i

    made.clear()
    stream = ahead(items(), n_ahead=2)
    next(stream)
    time.sleep(0.05)
    assert len(made) <= 5
    stream.close()


def test_what_stops_the_producer_reaches_the_consumer():
    def items():
        yield 1
        raise OSError("disk full")

    stream = ahead(items())
    assert next(stream) == 1
    with pytest.raises(OSError, match="disk full"):
        next(stream)
    with pytest.raises(ZeroDivisionError):
        list(mapped(lambda i: 1 // i, [1, 0]))


def test_a_consumer_that_stops_ends_the_producer_and_lets_it_clean_up():
    cleaned = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            cleaned.set()

    before = threading.active_count()
    stream = ahead(items())
    next(stream)
    stream.close()
    assert cleaned.is_set()
    assert threading.active_count() == before


def test_the_items_are_made_while_earlier_ones_are_used():
    made = [threading.Event() for _ in range(10)]

    def items():
        for i, event in enumerate(made):
            event.set()
            yield i

    for i in ahead(items()):
        assert all(event.wait(HANG_S) for event in made[i : i + 2])
    running, go_on = threading.Event(), threading.Event()

    def work(i: int) -> int:
        if i == 0:
            running.set()
            assert go_on.wait(HANG_S)
        return i

    def many():
        yield 0
        assert running.wait(HANG_S)  # the first is at work, and the caller still hands over more
        yield 1
        go_on.set()

    assert list(mapped(work, many())) == [0, 1]
