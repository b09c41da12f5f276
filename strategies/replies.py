"""Which replies are fit to be used: everything a node sends is checked before that."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fed_ist import protocol
from fed_ist.capacity import Device

MOST_EXAMPLES = 2**29  # below it float32 times a count is exact in float64 (see `ist.merge`)
Arrays = Mapping[str, NDArray[Any]]
Shapes = Mapping[str, tuple[tuple[int, ...], str]]  # name -> shape, dtype


class RejectedError(Exception):
    """A reply that must change nothing; the message says why."""


def shapes_of(arrays: Arrays) -> Shapes:
    return {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}


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


def read_device(reply: Message) -> Device:
    """What a node says of itself; raises `RejectedError` for what no node can be."""
    record = _content(reply).metric_records[protocol.METRICS]
    values: list[float | None] = []
    for name in protocol.DEVICE:
        value = record.get(name)
        if value is not None and (not isinstance(value, int | float) or not 0 < value < math.inf):
            raise RejectedError(f"its '{name}' is {value!r}")
        values.append(value)
    return Device(*values)


def read_arrays(reply: Message, wanted: Shapes) -> dict[str, NDArray[Any]]:
    """The arrays of a reply, of just these names, shapes and dtypes, and all finite.

    Raises `RejectedError` otherwise.
    """
    record = _content(reply).get(protocol.ARRAYS)
    if not isinstance(record, ArrayRecord):
        raise RejectedError("it has no arrays")
    if set(record) != set(wanted):
        raise RejectedError(f"its arrays are {sorted(record)}, not {sorted(wanted)}")
    received: dict[str, NDArray[Any]] = {}
    for name, array in record.items():
        shape, dtype = wanted[name]
        # Compare what the node declares before its bytes are unpacked into memory.
        if tuple(array.shape) != shape or array.dtype != dtype:
            raise RejectedError(
                f"'{name}' is {array.dtype}{tuple(array.shape)}, not {dtype}{shape}"
            )
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if len(array.data) > n_bytes + 4096:
            raise RejectedError(f"'{name}' is {len(array.data)} bytes long, not {n_bytes}")
        try:
            received[name] = array.numpy()
        except Exception as error:  # whatever a node may have put into the bytes
            raise RejectedError(f"'{name}' cannot be unpacked: {error}") from error
        if received[name].shape != shape or received[name].dtype != dtype:
            raise RejectedError(f"'{name}' holds {received[name].dtype}{received[name].shape}")
        if not np.isfinite(received[name]).all():
            raise RejectedError(f"'{name}' holds NaN or Inf")
    return received


def read_outcome(reply: Message) -> tuple[int, float, float]:
    """(number of examples, loss, seconds of training) of a reply; raises `RejectedError`."""
    metrics = read_metrics(reply, (protocol.NUM_EXAMPLES, protocol.LOSS, protocol.SECONDS))
    n_examples = int(metrics[protocol.NUM_EXAMPLES])
    if not 1 <= n_examples < MOST_EXAMPLES:
        raise RejectedError(f"its '{protocol.NUM_EXAMPLES}' is {n_examples}")
    return n_examples, metrics[protocol.LOSS], metrics[protocol.SECONDS]


def _content(reply: Message) -> RecordDict:
    if reply.has_error():
        raise RejectedError(reply.error.reason or f"error {reply.error.code}")
    return reply.content
