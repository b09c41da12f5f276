"""Between plain arrays and Flower messages, and what a message weighs."""

import math

import numpy as np
from flwr.app import Array, ArrayRecord, Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fed_ist.heads import Params


def to_record(params: Params) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in params.items()})


def from_record(record: ArrayRecord) -> Params:
    return {name: array.numpy() for name, array in record.items()}


def payload_bytes(message: Message) -> int:
    """Bytes of the bare arrays in a message, without names, shapes and headers."""
    if message.has_error():
        return 0
    return sum(
        math.prod(array.shape) * np.dtype(array.dtype).itemsize
        for record in message.content.array_records.values()
        for array in record.values()
    )


def message_bytes(message: Message) -> int:
    """Bytes of a Flower message as sent: all the objects that it is made of, serialised."""
    return sum(len(value.deflate()) for value in get_all_nested_objects(message).values())
