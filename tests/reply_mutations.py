"""Replies as no node should send them, made of honest ones: anything that Flower lets through."""

import copy
import io
import zlib
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fed_ist.traffic import protocol

NUMBERS = (
    *(0, -1, 1, 2**29, 2**31, 2**62, -(2**62), 0.5, -0.0, 1e9, 1.7e308, -1.7e308, 5e-324),
    *(float("nan"), float("inf"), -float("inf")),
    *([], [1, -2], [2**62, 2**62], [0.5, float("nan")], [1e308, 1e308]),
)
VALUES = (
    *NUMBERS,
    *("", "text\n", "\x1b[2J", "9" * 50, b"", bytes(7), bytes(range(256)), ["a"], [b"b"], [True]),
    *(True, False),
)


def _archive(compress: bool) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, a=np.zeros(3))
    return buffer.getvalue()


def _saved(array: np.ndarray, pickled: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickled)
    return buffer.getvalue()


DATA = (
    *(b"", b"short", bytes(300), _archive(False), _archive(True)),
    *(_saved(np.array([{}, None]), pickled=True), _saved(np.zeros((0, 3), np.float32))),
    *(_saved(np.array(["text"])), _saved(np.full(4, np.nan, np.float32))),
)


def mutate(honest: Message, asked: Message, rng: np.random.Generator) -> Message:
    """The reply changed in one to four places."""
    reply = Message(copy.deepcopy(honest.content), reply_to=asked)
    for _ in range(int(rng.integers(1, 5))):
        _change(reply.content, rng)
    metadata: dict[str, Any] = reply.metadata.__dict__
    if rng.random() < 0.1:
        metadata["_message_type"] = _pick(rng, ["query.nothing", "train", "query", "evaluate.x9"])
    if rng.random() < 0.05:
        metadata["_src_node_id"] = _pick(rng, [0, 1, 2**63, honest.metadata.src_node_id + 1])
    if rng.random() < 0.02:
        reason = _pick(rng, ["", "\x1b[31m", "x" * 9999])
        reply = Message(Error(_pick(rng, [0, 1, 99]), reason), reply_to=asked)
    return reply


def _pick(rng: np.random.Generator, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def _change(content: RecordDict, rng: np.random.Generator) -> None:
    names = sorted(content)
    if not names or rng.random() < 0.05:
        content[_pick(rng, [protocol.METRICS, protocol.REPLY, protocol.ARRAYS, "x"])] = _record(rng)
        return
    name = _pick(rng, names)
    record: Any = content[name]
    keys = sorted(record)
    key = _pick(rng, keys) if keys else "x"
    kind = rng.random()
    if kind < 0.05:
        del content[name]
    elif kind < 0.1:
        content[name] = _record(rng)
    elif kind < 0.15 and keys:
        del record[key]
    elif isinstance(record, ArrayRecord):
        _change_array(record, key, rng)
    elif keys and isinstance(record[key], bytes) and kind < 0.85:
        record[key] = _changed_bytes(record[key], rng)
    else:
        extra = [protocol.VERSIONS, protocol.CAPACITY, protocol.NAME, protocol.LOSS]
        target = _pick(rng, [*keys, *extra, *protocol.DEVICE])
        record[target] = _pick(rng, NUMBERS if isinstance(record, MetricRecord) else VALUES)


def _record(rng: np.random.Generator) -> Any:
    key = _pick(rng, [protocol.LOSS, protocol.SLICE, protocol.NUM_EXAMPLES, "x"])
    kind = int(rng.integers(3))
    if kind == 0:
        return ConfigRecord({key: _pick(rng, VALUES)})
    if kind == 1:
        return MetricRecord({key: _pick(rng, NUMBERS)})
    return ArrayRecord({key: Array(np.zeros(3, np.float32))})


def _change_array(record: Any, key: str, rng: np.random.Generator) -> None:
    if key not in record:
        return
    array = record[key]
    dtype, shape, data = array.dtype, tuple(array.shape), array.data
    match int(rng.integers(5)):
        case 0:
            data = _pick(rng, DATA)
        case 1:
            dtype = _pick(rng, ["float64", "int8", "object", "nonsense", "<f4", ""])
        case 2:
            shape = _pick(rng, [(), (0,), (2**40, -1), (*shape, 1), tuple(reversed(shape))])
        case 3:
            data = _changed_bytes(data, rng)
        case _:
            if not data.startswith(b"\x93NUMPY") or b"|O" in data[:128]:
                return  # it was changed before
            try:
                values = np.load(io.BytesIO(data)).copy()
            except (ValueError, EOFError, SyntaxError):  # also then
                return
            is_float = values.dtype.kind == "f"
            wrong = [np.nan, np.inf, -1, 3e38, 2**31] if is_float else [-1, 2**31 - 1]
            values.reshape(-1)[int(rng.integers(max(1, values.size))) :] = _pick(rng, wrong)
            data = _saved(values)
    record[key] = Array(dtype=dtype, shape=shape, stype=array.stype, data=data)


def _changed_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Other bytes, half of the time with the checksum that an encoded slice of them would have."""
    changed = bytearray(data)
    match int(rng.integers(5)):
        case 0:
            changed = changed[: int(rng.integers(len(changed) + 1))]
        case 1:
            changed += bytes(rng.integers(0, 256, int(rng.integers(1, 64)), dtype=np.uint8))
        case 2:
            return bytes(_pick(rng, DATA))
        case 3:  # a run of numbers that are not finite, or huge
            first = int(rng.integers(6, max(7, len(changed))))
            last = min(len(changed), first + int(rng.integers(1, 4096)))
            changed[first:last] = bytes([_pick(rng, [0xFF, 0x7F, 0x00, 0x7C])]) * (last - first)
        case _:
            for _ in range(int(rng.integers(1, 9))):
                if changed:
                    changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
    if len(changed) >= 6 and rng.random() < 0.5:
        changed[2:6] = zlib.crc32(bytes(changed[6:])).to_bytes(4, "little")
    return bytes(changed)
