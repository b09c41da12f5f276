"""Between plain arrays and Flower messages, and what a message weighs."""

from typing import Any

from flwr.app import Array, ArrayRecord, Message, Metadata
from flwr.app.message import make_message
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    no_object_id_recompute,
)

from fed_ist.classifier.layout import Params

LARGEST_ID = 2**64 - 1
MESSAGE_ID = "0" * 64  # in a deployment a message's is a digest of its content, in hexadecimal


def to_record(params: Params) -> ArrayRecord:
    """Named arrays as Flower sends them, of the same shapes and dtypes."""
    return ArrayRecord({name: Array(array) for name, array in params.items()})


def from_record(record: ArrayRecord) -> Params:
    """Named arrays out of a record that we made, of the same shapes and dtypes.

    What a node has sent is read by `replies.read_arrays` instead, which checks it.
    """
    return {name: array.numpy() for name, array in record.items()}


def payload_bytes(message: Message) -> int:
    """Bytes of the encoded slices and the bare arrays in a message, without names and headers.

    Equal arrays count once, as Flower sends them once.
    """
    if message.has_error():
        return 0
    arrays = {
        array.object_id: _bare_bytes(array)
        for record in message.content.array_records.values()
        for array in record.values()
    }
    slices = [
        len(value)
        for record in message.content.config_records.values()
        for value in record.values()
        if isinstance(value, bytes)
    ]
    return sum(arrays.values()) + sum(slices)


def _bare_bytes(array: Array) -> int:
    """Of an array without numpy's header: by what is there, since nodes may declare anything."""
    header = 10 + int.from_bytes(array.data[8:10], "little")
    return max(0, len(array.data) - header)


def message_bytes(message: Message) -> int:
    """Bytes of a Flower message as sent; see `weigh`."""
    return weigh(message)[0]


def weigh(message: Message) -> tuple[int, int]:
    """(bytes of a Flower message as sent: all the objects that it is made of, serialised; how many
    objects these are, each with a request of its own).

    Equal objects, such as arrays of zeros, are one: an object's id is a digest of its content.
    Flower draws the ids of runs, nodes and tasks at random, and small ones take a byte or two less;
    those of messages are shorter in a simulation. Each is counted at its full width, so that
    identical runs weigh the same, simulated or not.
    """
    ids = message.metadata
    metadata = Metadata(
        run_id=LARGEST_ID,
        message_id="",
        src_node_id=LARGEST_ID,
        dst_node_id=LARGEST_ID,
        reply_to_message_id=MESSAGE_ID if ids.reply_to_message_id else "",
        group_id=ids.group_id,
        created_at=ids.created_at,
        ttl=ids.ttl,
        message_type=ids.message_type,
        src_task_id=None if ids.src_task_id is None else LARGEST_ID,
        dst_task_id=None if ids.dst_task_id is None else LARGEST_ID,
    )
    part: Any = {"error": message.error} if message.has_error() else {"content": message.content}
    wide = make_message(metadata, **part)
    with no_object_id_recompute():  # else each object is hashed again for each that holds it
        objects = get_all_nested_objects(wide).values()
        return sum(len(value.deflate()) for value in objects), len(objects)
