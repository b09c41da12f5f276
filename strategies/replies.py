"""Which replies are fit to be merged: everything a node sends is checked before it is used."""

import math

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord

from fed_ist import protocol
from fed_ist.heads import Params


class RejectedError(Exception):
    """A reply that must change nothing; the message says why."""


def read_metrics(reply: Message, names: tuple[str, ...]) -> dict[str, float]:
    """The named scalars of a reply, all finite; raises `RejectedError`."""
    record = _content(reply).get(protocol.METRICS)
    if not isinstance(record, MetricRecord):
        raise RejectedError("it has no metrics")
    metrics: dict[str, float] = {}
    for name in names:
        value = record.get(name)
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise RejectedError(f"its '{name}' is {value!r}")
        metrics[name] = value
    return metrics


def read_slice(reply: Message, sent: Params) -> tuple[Params, int, float]:
    """(trained slice, number of examples, loss) of a reply to the slice `sent`.

    Raises `RejectedError` where names, shapes or dtypes differ from what was sent, or a value is
    not finite.
    """
    record = _content(reply).get(protocol.ARRAYS)
    if not isinstance(record, ArrayRecord):
        raise RejectedError("it has no arrays")
    if set(record) != set(sent):
        raise RejectedError(f"its arrays are {sorted(record)}, not {sorted(sent)}")
    received: Params = {}
    for name, array in record.items():
        wanted = sent[name]
        # Compare what the node declares before its bytes are unpacked into memory.
        if tuple(array.shape) != wanted.shape or array.dtype != str(wanted.dtype):
            raise RejectedError(
                f"'{name}' is {array.dtype}{tuple(array.shape)}, not {wanted.dtype}{wanted.shape}"
            )
        if len(array.data) > wanted.nbytes + 4096:
            raise RejectedError(f"'{name}' is {len(array.data)} bytes long, not {wanted.nbytes}")
        try:
            received[name] = array.numpy()
        except Exception as error:  # whatever a node may have put into the bytes
            raise RejectedError(f"'{name}' cannot be unpacked: {error}") from error
        if received[name].shape != wanted.shape or received[name].dtype != wanted.dtype:
            raise RejectedError(f"'{name}' holds {received[name].dtype}{received[name].shape}")
        if not np.isfinite(received[name]).all():
            raise RejectedError(f"'{name}' holds NaN or Inf")
    metrics = read_metrics(reply, (protocol.NUM_EXAMPLES, protocol.LOSS))
    n_examples = int(metrics[protocol.NUM_EXAMPLES])
    if not 1 <= n_examples < 2**29:
        raise RejectedError(f"its '{protocol.NUM_EXAMPLES}' is {n_examples}")
    return received, n_examples, metrics[protocol.LOSS]


def _content(reply: Message):  # type: ignore[no-untyped-def]
    if reply.has_error():
        raise RejectedError(reply.error.reason or f"error {reply.error.code}")
    return reply.content
