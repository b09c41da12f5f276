"""What nodes are called: a registered key's name is that key's; any other, whoever had it first.

Flower's SuperLink knows with which key each node signs its requests, and under which name its owner
has registered that key (`flwr supernode register KEY.pub SUPERLINK --name NAME`). Nodes without a
registered key have none.
"""

from collections.abc import Iterable, Mapping

from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from fed_ist.traffic import protocol
from strategies.core.replies import RejectedError


def connected_nodes(grid: Grid) -> dict[int, NodeInfo]:
    """What the SuperLink knows of each node that is connected, by its id."""
    return {info.node_id: info for info in grid.get_nodes()}


def key_name(info: NodeInfo | None) -> str:
    """The name under which a node's key is registered; "" where there is none that we could use."""
    return info.name if info is not None and protocol.NAME_PATTERN.fullmatch(info.name) else ""


def own_name(node_id: int, said: str, info: NodeInfo | None, others_are_named: bool) -> str:
    """What a node is called that says of itself that it is called `said` ("" for nothing).

    others_are_named: whether keys of other nodes are registered under names. A node whose key is
    not could otherwise take the name of one that is away.
    Raises `RejectedError` where the name is not its key's.
    """
    name = key_name(info)
    if said and said != name and (name or others_are_named):
        how = f"as {info.name!r}" if info is not None and info.name else "without a name"
        raise RejectedError(
            f"it calls itself '{said}', and its key is registered {how}: name it as its key is "
            f"named, or register the key again, with --name {said}"
        )
    return name or said or str(node_id)


def by_age(node_ids: Iterable[int], known: Mapping[int, NodeInfo]) -> list[int]:
    """The nodes that registered first come first; the others as they are given."""
    return sorted(node_ids, key=lambda i: known[i].registered_at if i in known else "~")
