"""Which replies are fit to be used: everything a node sends is checked before that."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fed_ist.classifier.layout import Params
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import Shapes, decode
from fed_ist.training.boards import Device
from strategies.core.method import Layout

MOST_EXAMPLES = 2**29 - 1  # up to it float32 times a count is exact in float64 (see `slices.merge`)
MOST_BYTES = 2**53  # of images; up to it float64 counts one by one
MOST_PARTITIONS = 2**31
MOST_VERSIONS = 2**31  # of a part of the classifier: it has one more with each node that comes late
# Of each scalar that a node states: sums of as many as there are nodes stay finite.
MOST: Mapping[str, float] = {
    protocol.NUM_EXAMPLES: MOST_EXAMPLES,
    protocol.IMAGES_SKIPPED: MOST_EXAMPLES,
    protocol.UNKNOWN_CLASSES: MOST_EXAMPLES,
    protocol.ORIGINAL_BYTES: MOST_BYTES,
    protocol.RAW_BYTES: MOST_BYTES,
    protocol.PACKED_BYTES: MOST_BYTES,
    protocol.LOSS: 1e9,  # of float32 that training can go on from; the wrong class at 1e4 costs 1e4
    protocol.SECONDS: 1e8,  # three years
}
MOST_OF_DEVICE = 1e18  # bytes, multiply-adds a second, and so on
LEAST_OF_DEVICE = 1e-9
LONGEST_REASON = 300


class RejectedError(Exception):
    """A reply that must change nothing; the message says why.

    Nodes have a hand in that message, and it goes into a log that people read in terminals: it has
    `LONGEST_REASON` printable characters at most.
    """

    def __init__(self, reason: str) -> None:
        kept = reason[:LONGEST_REASON]
        text = "".join(letter if letter.isprintable() else " " for letter in kept)
        super().__init__(text + "…" * (len(reason) > LONGEST_REASON))


class UnpreparedError(RejectedError):
    """The same of a node that must prepare again: it has failed, or its images have changed."""


@contextmanager
def rejecting() -> Iterator[None]:
    """Within it whatever reading a reply raises is a `RejectedError`: no reply ends a run.

    A `ValueError` is what the core finds impossible, and says so; anything else is a surprise, and
    is named by its type too.
    """
    try:
        yield
    except RejectedError:
        raise
    except ValueError as reason:
        raise RejectedError(str(reason)) from None
    except Exception as error:
        raise RejectedError(f"it cannot be read ({type(error).__name__}: {error})") from None


def require_size(reply: Message, n_bytes: int, most: int) -> None:
    """Raise `RejectedError` for a reply of more bytes than it can need; ask before reading it.

    Errors may be long, since nothing of them is used but the beginning of their text.
    """
    if n_bytes > most and not reply.has_error():
        raise RejectedError(f"it has {n_bytes} bytes, and no more than {most} were to be expected")


def read_scalars(reply: Message, record: str, names: tuple[str, ...]) -> dict[str, float]:
    """The named scalars of a record of a reply, each from 0 to `MOST`; raises `RejectedError`."""
    found = _metrics(reply) if record == protocol.METRICS else _content(reply).get(record)
    if not isinstance(found, ConfigRecord | MetricRecord):
        raise RejectedError(f"it has no '{record}'")
    scalars: dict[str, float] = {}
    for name in names:
        value = found.get(name)
        if not isinstance(value, int | float) or not 0 <= value <= MOST[name]:
            raise RejectedError(f"its '{name}' is {value!r}")
        scalars[name] = value
    return scalars


def read_partition(reply: Message) -> int | None:
    """Which partition a simulated node has, None for another node; raises `RejectedError`."""
    partition = _metrics(reply).get(protocol.PARTITION)
    if partition is None or (type(partition) is int and 0 <= partition < MOST_PARTITIONS):
        return partition
    raise RejectedError(f"its '{protocol.PARTITION}' is {partition!r}")


def read_prepared(reply: Message) -> dict[str, float]:
    """The counts of a node that is prepared, whole and possible; raises `RejectedError`."""
    counts = read_scalars(reply, protocol.METRICS, protocol.PREPARED)
    for name, count in counts.items():
        least = 1 if name == protocol.NUM_EXAMPLES else 0
        if count < least or count != int(count):
            raise RejectedError(f"its '{name}' is {count!r}")
    return counts


def read_capacity(reply: Message, usual: float) -> float:
    """The share of the neurons that a node was told it can train, or the usual one.

    Raises `RejectedError` for what is no share.
    """
    capacity = _metrics(reply).get(protocol.CAPACITY, usual)
    if not isinstance(capacity, float) or not 0 < capacity <= 1:
        raise RejectedError(f"its '{protocol.CAPACITY}' is {capacity!r}")
    return capacity


def read_device(reply: Message) -> Device:
    """What a node says of itself; raises `RejectedError` for what no node can be."""
    record = _metrics(reply)
    values: list[float | None] = []
    for name in protocol.DEVICE:
        value = record.get(name)
        if value is not None and (
            not isinstance(value, int | float) or not LEAST_OF_DEVICE <= value <= MOST_OF_DEVICE
        ):
            raise RejectedError(f"its '{name}' is {value!r}")
        values.append(value)
    return Device(*values)


def read_name(reply: Message) -> str:
    """What a prepared node is called, "" if nothing; raises `RejectedError` for what is no name."""
    record = _content(reply).config_records.get(protocol.REPLY, ConfigRecord())
    name = record.get(protocol.NAME, "")
    if name != "" and not (isinstance(name, str) and protocol.NAME_PATTERN.fullmatch(name)):
        raise RejectedError(f"its '{protocol.NAME}' is not possible")
    return name


def read_held(reply: Message) -> dict[str, int]:
    """The version of each of `protocol.PARTS` that a prepared node has, 0 for none.

    Raises `RejectedError` for what are no versions.
    """
    record = _metrics(reply)
    versions = record.get(protocol.VERSIONS, [0] * len(protocol.PARTS))
    if not (
        isinstance(versions, list)
        and len(versions) == len(protocol.PARTS)
        and all(type(version) is int and 0 <= version < MOST_VERSIONS for version in versions)
    ):
        raise RejectedError(f"its '{protocol.VERSIONS}' are {versions!r}")
    return {part: int(version) for part, version in zip(protocol.PARTS, versions, strict=True)}


def read_arrays(reply: Message, wanted: Layout) -> dict[str, NDArray[Any]]:
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
        received[name] = _unpacked(name, array)
        if received[name].shape != shape or received[name].dtype != dtype:
            raise RejectedError(f"'{name}' holds {received[name].dtype}{received[name].shape}")
        if not np.isfinite(received[name]).all():
            raise RejectedError(f"'{name}' holds NaN or Inf")
    return received


def _unpacked(name: str, array: Array) -> NDArray[Any]:
    """The array in these bytes, whatever a node may have put there; raises `RejectedError`."""
    try:
        found = array.numpy()
    except Exception as error:
        raise RejectedError(f"'{name}' cannot be unpacked: {error}") from error
    # numpy reads an archive of arrays from bytes that are one, and leaves it unread.
    if not isinstance(found, np.ndarray):
        raise RejectedError(f"'{name}' holds a {type(found).__name__}, no array")
    return found


def read_encoded(reply: Message, name: str, codec: str, shapes: Shapes) -> Params:
    """Parameters, of just these names and shapes and all finite, that a node has encoded.

    Raises `RejectedError` otherwise.
    """
    record = _content(reply).get(protocol.REPLY)
    data = record.get(name) if isinstance(record, ConfigRecord) else None
    if not isinstance(data, bytes):
        raise RejectedError(f"it has no '{name}'")
    try:
        return decode(data, codec, shapes)
    except ValueError as reason:
        raise RejectedError(f"its '{name}' cannot be used: {reason}") from None


def read_counts(reply: Message, num_classes: int) -> NDArray[np.int64]:
    """The images of each class that a node has stated: int64 (num_classes,).

    Raises `RejectedError` for anything but as many whole numbers.
    """
    counts = _content(reply)[protocol.REPLY].get(protocol.COUNTS)
    if not isinstance(counts, list) or len(counts) != num_classes:
        raise RejectedError(f"it has no '{protocol.COUNTS}' of {num_classes} classes")
    if not all(type(count) is int and abs(count) < 2**53 for count in counts):
        raise RejectedError(f"its '{protocol.COUNTS}' are no numbers of images")
    return np.array(counts, dtype=np.int64)


def read_outcome(reply: Message, slice_id: str, n_examples: int) -> tuple[float, float]:
    """(loss, seconds of training) of a reply; raises `RejectedError`.

    slice_id: of the slice that the node got. n_examples: that it had when it was prepared. What it
    answers is of these: its count is the weight of its slice.
    """
    names = (protocol.NUM_EXAMPLES, protocol.LOSS, protocol.SECONDS)
    scalars = read_scalars(reply, protocol.REPLY, names)
    if reply.content[protocol.REPLY].get(protocol.TRAINED) != slice_id:
        raise RejectedError("it is about another slice than the one that the node got")
    if scalars[protocol.NUM_EXAMPLES] != n_examples:
        raise UnpreparedError(
            f"it has trained on {scalars[protocol.NUM_EXAMPLES]} images and was prepared with "
            f"{n_examples}"
        )
    return scalars[protocol.LOSS], scalars[protocol.SECONDS]


def _metrics(reply: Message) -> MetricRecord:
    found = _content(reply).get(protocol.METRICS)
    if not isinstance(found, MetricRecord):
        raise RejectedError(f"it has no '{protocol.METRICS}'")
    return found


def _content(reply: Message) -> RecordDict:
    if reply.has_error():
        raise UnpreparedError(reply.error.reason or f"error {reply.error.code}")
    return reply.content
