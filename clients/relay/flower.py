"""The requests and answers of Flower's Fleet API that the relays make and read themselves."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import TypeVar

from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeResponse,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest, GetRunResponse
from google.protobuf.message import DecodeError, Message

from fed_ist.errors import InputError
from fed_ist.relay.frames import UnreadableFrameError

TRIED = ("1.42.0",)
M = TypeVar("M", bound=Message)
# A node is away for Flower after twice this time without a heartbeat; one comes each 240 s.
HEARTBEAT_S = 300.0


def require_tried() -> None:
    """Raise `InputError` for a Flower whose requests the relays were not tried with."""
    found = version("flwr")
    if found not in TRIED:
        raise InputError(
            f"flwr {found} is installed, and the relay was tried with flwr {', '.join(TRIED)} "
            f"alone: install flwr=={TRIED[-1]}, or start flower-supernode itself."
        )


def parsed(kind: type[M], body: bytes) -> M:
    """A message of Flower's; raises `UnreadableFrameError` where the bytes are none."""
    message: M = kind()
    try:
        message.ParseFromString(body)
    except DecodeError:
        raise UnreadableFrameError(f"no {kind.__name__}") from None
    return message


def object_ids(trees: Sequence[ObjectTree]) -> list[str]:
    """The ids of all objects in these trees, each once, in the order of the trees."""

    def walk(tree: ObjectTree) -> Iterator[str]:
        yield tree.object_id
        for child in tree.children:
            yield from walk(child)

    return list(dict.fromkeys(name for tree in trees for name in walk(tree)))


__all__ = [
    "ActivateNodeResponse",
    "ConfirmMessageReceivedRequest",
    "DeactivateNodeRequest",
    "GetFabRequest",
    "GetRunRequest",
    "GetRunResponse",
    "Node",
    "ObjectTree",
    "PullMessagesRequest",
    "PullMessagesResponse",
    "PullObjectRequest",
    "PullObjectResponse",
    "PushMessagesRequest",
    "PushMessagesResponse",
    "PushObjectRequest",
    "PushObjectResponse",
    "SendNodeHeartbeatRequest",
    "SendNodeHeartbeatResponse",
]
