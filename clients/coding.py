"""Between slices as they travel, in few bytes, and the arrays that are trained."""

from collections.abc import Callable, Mapping
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from numpy.typing import NDArray

from clients.node import identify
from clients.work import encode_reply, largest_changes
from fed_ist.classifier.layout import Params, hidden_widths, param_shapes
from fed_ist.classifier.slices import extract, from_neuron_bits
from fed_ist.config.derive import draw_classifier
from fed_ist.config.run_config import RunConfig
from fed_ist.errors import InputError
from fed_ist.rng import generator
from fed_ist.statistics.anchors import start_silent
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import Shapes, decode, encode

# The slice and the task -> the trained slice and what goes with it: what `work.train_slice` gives.
Train = Callable[[Params, dict[str, Any]], tuple[Params, dict[str, Any]]]
MEMORY = "memory"  # record of context.state: what top-k has not sent yet


def answer(message: Message, context: Context, config: RunConfig, train: Train) -> RecordDict:
    """The slice in a message, decoded, trained and encoded again.

    Raises `InputError` for a slice that cannot be read, or an answer that cannot be sent.
    """
    task = task_of(message)
    if protocol.SLICE in task:
        data = task.pop(protocol.SLICE)
        shapes = param_shapes([int(width) for width in task[protocol.WIDTHS]], config.norm)
        sent = decoded({protocol.SLICE: data}, protocol.SLICE, config.down_codec, shapes)
    else:
        sent = drawn_slice(task, config)
        data = encode(sent, "fp32", generator(config.seed, "unused"))
    trained, scalars = train(sent, task)
    server_round = int(task[protocol.ROUND])
    found = {**scalars, protocol.TRAINED: protocol.slice_id(data, server_round)}
    return _encoded(trained, sent, server_round, found, context, config)


def drawn_slice(task: dict[str, Any], config: RunConfig) -> Params:
    """The slice of a classifier that nobody has trained yet, which did not need to travel: float32
    arrays, named as in `fed_ist.classifier.layout`. Raises `InputError` for neurons that it lacks.
    """
    n_inputs, *_, num_classes = (int(width) for width in task[protocol.WIDTHS])
    params = draw_classifier(config, n_inputs, num_classes)
    if task[protocol.DRAWN] == protocol.SILENT:
        params = start_silent(params)
    try:
        subnet = from_neuron_bits(task[protocol.NEURONS], hidden_widths(params))
    except ValueError as error:
        raise InputError(f"The neurons that the server names cannot be read: {error}.") from None
    return extract(params, subnet)


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
        memory = None if before is None else arrays_of(before)
        payload, left = largest_changes(trained, sent, memory, config)
        context.state[MEMORY] = array_record(left)
        return RecordDict(
            {protocol.ARRAYS: array_record(payload), protocol.REPLY: ConfigRecord(scalars)}
        )
    slice_ = encode_reply(trained, sent, server_round, identify(context).number, config)
    return RecordDict({protocol.REPLY: ConfigRecord({protocol.SLICE: slice_, **scalars})})


def decoded(record: Mapping[str, Any], name: str, codec: str, shapes: Shapes) -> Params:
    """Parameters that came from the server, float32 arrays of these shapes.

    record, name: where their bytes are, in this codec. Raises `InputError` where they cannot be
    read.
    """
    try:
        return decode(record[name], codec, shapes)
    except ValueError as error:
        raise InputError(f"The {name} that came cannot be read: {error}.") from None


def task_of(message: Message) -> dict[str, Any]:
    """What the server asks in a message, by the keys of `protocol.TASK`; a copy."""
    return dict(message.content.config_records[protocol.TASK])


def array_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Named arrays as Flower sends and keeps them, of the same shapes and dtypes."""
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def arrays_of(record: ArrayRecord) -> Params:
    """Named arrays out of a record, of the same shapes and dtypes."""
    return {name: array.numpy() for name, array in record.items()}
