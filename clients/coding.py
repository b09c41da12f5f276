"""Between slices as they travel, in few bytes, and the plain arrays that Flower's mods work on."""

from collections.abc import Mapping
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from numpy.typing import NDArray

from clients.node import identify
from clients.refusal import refusal
from clients.work import encode_reply, largest_changes
from fed_ist import protocol
from fed_ist.codecs import Shapes, decode
from fed_ist.config import RunConfig, parse_config
from fed_ist.errors import InputError
from fed_ist.heads import Params, param_shapes

MEMORY = "memory"  # record of context.state: what top-k has not sent yet


def coded(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A Flower mod within which slice and answer are an `ArrayRecord` each."""
    try:
        config = parse_config(context.run_config)
        task: dict[str, Any] = dict(message.content.config_records[protocol.TASK])
        data = task.pop(protocol.SLICE)
        shapes = param_shapes([int(width) for width in task[protocol.WIDTHS]], config.norm)
        sent = decoded({protocol.SLICE: data}, protocol.SLICE, config.down_codec, shapes)
        content = RecordDict(
            {protocol.TASK: ConfigRecord(task), protocol.ARRAYS: array_record(sent)}
        )
        plain = Message(content=content, metadata=message.metadata)  # type: ignore[call-overload]
        reply = call_next(plain, context)
        if reply.has_error():
            return reply
        scalars = dict(reply.content.config_records[protocol.REPLY])
        server_round = int(task[protocol.ROUND])
        scalars[protocol.TRAINED] = protocol.slice_id(data, server_round)
        answer = _encoded(arrays_of(reply), sent, server_round, scalars, context, config)
        return Message(answer, reply_to=message)
    except (InputError, OSError) as error:
        return refusal(error, message)


def _encoded(
    trained: Params,
    sent: Params,
    server_round: int,
    scalars: dict[str, Any],
    context: Context,
    config: RunConfig,
) -> RecordDict:
    if config.strategy == "topk":
        before = context.state.array_records.get(MEMORY)
        memory = None if before is None else _arrays(before)
        payload, left = largest_changes(trained, sent, memory, config)
        context.state[MEMORY] = array_record(left)
        return RecordDict(
            {protocol.ARRAYS: array_record(payload), protocol.REPLY: ConfigRecord(scalars)}
        )
    slice_ = encode_reply(trained, sent, server_round, identify(context).number, config)
    return RecordDict({protocol.REPLY: ConfigRecord({protocol.SLICE: slice_, **scalars})})


def decoded(record: Mapping[str, Any], name: str, codec: str, shapes: Shapes) -> Params:
    """Parameters that came from the server; raises `InputError` where they cannot be read."""
    try:
        return decode(record[name], codec, shapes)
    except ValueError as error:
        raise InputError(f"The {name} that came cannot be read: {error}.") from None


def arrays_of(message: Message) -> Params:
    """The plain arrays in a message."""
    return _arrays(message.content.array_records[protocol.ARRAYS])


def array_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def _arrays(record: ArrayRecord) -> Params:
    return {name: array.numpy() for name, array in record.items()}
