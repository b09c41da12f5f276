"""Pre-training that is cut before one of its steps."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fed_ist.pretraining.loop import learning_rate_at


class CutError(Exception):
    pass


@contextmanager
def cut_in_training(cut_at: int) -> Iterator[None]:
    """A context in which training is cut before a step, counted from 0 over all stages."""
    calls = iter(range(1000))

    def cut(*values):
        if next(calls) == cut_at:
            raise CutError
        return learning_rate_at(*values)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(CutError):
        patched.setattr("fed_ist.pretraining.loop.learning_rate_at", cut)
        yield
