"""Flower's mods: around all that a node does, and around training.

Within those around training, slice and answer are an `ArrayRecord` each.
"""

from collections.abc import Sequence
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import make_ffn
from flwr.clientapp.typing import ClientAppCallable, Mod
from threadpoolctl import threadpool_limits

from clients.coding import Train, array_record, arrays_of, task_of
from fed_ist.classifier.layout import Params
from fed_ist.errors import InputError
from fed_ist.traffic import protocol


def in_one_thread(message: Message, context: Context, work: ClientAppCallable) -> Message:
    """Do a node's work with matrix products in one thread, whatever its environment says.

    OpenBLAS shares a product out by the number of threads, and on most processors adds its terms
    in another order then: the same seed would give other bits in Ray's workers, on a SuperNode and
    within one process. One thread is as fast at slices, and leaves the other cores to other nodes.
    """
    with threadpool_limits(1, user_api="blas"):
        return work(message, context)


def within(mods: Sequence[Mod], train: Train, message: Message, context: Context) -> Train:
    """Training as it comes out through mods, the first of which is the outermost.

    message: with the metadata that they see. Without mods, nothing is made into records.
    """
    if not mods:
        return train

    def learn(plain: Message, context: Context) -> Message:
        trained, scalars = train(slice_in(plain), task_of(plain))
        content = RecordDict(
            {protocol.ARRAYS: array_record(trained), protocol.REPLY: ConfigRecord({**scalars})}
        )
        return Message(content, reply_to=plain)

    def through(sent: Params, task: dict[str, Any]) -> tuple[Params, dict[str, Any]]:
        content = RecordDict(
            {protocol.TASK: ConfigRecord(task), protocol.ARRAYS: array_record(sent)}
        )
        plain = Message(content=content, metadata=message.metadata)  # type: ignore[call-overload]
        reply = make_ffn(learn, list(mods))(plain, context)
        if reply.has_error():
            raise InputError(reply.error.reason)
        return slice_in(reply), dict(reply.content.config_records[protocol.REPLY])

    return through


def slice_in(message: Message) -> Params:
    """The plain arrays in a message, as mods see it: the slice or the answer, float32."""
    return arrays_of(message.content.array_records[protocol.ARRAYS])
