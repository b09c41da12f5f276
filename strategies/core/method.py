"""What an algorithm decides, on plain arrays and without Flower.

A method that trains in rounds says which slice of the classifier goes to which node, what the node
is told, and what becomes of the slices that come back. A closed form says which statistics are
asked for, and what they are solved to. Everything else is `strategies.federated`'s.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.layout import Params
from fed_ist.classifier.slices import Subnet
from fed_ist.config.run_config import RunConfig
from fed_ist.runs.checkpoint import State
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import Shapes, encoded_bytes

# Array names -> (shape, dtype), of what a node is to send.
Layout = Mapping[str, tuple[tuple[int, ...], str]]


@dataclass(frozen=True)
class Dealing:
    """What a rule may know when it deals slices in a round.

    widths: neurons on each axis. capacities: of the sampled nodes, the share of the neurons that
    each can train. places: of the sampled nodes, which one each is when they are put in the order
    of their names.
    """

    widths: Mapping[str, int]
    capacities: Sequence[float]
    places: Sequence[int]
    server_round: int
    rng: np.random.Generator


@dataclass
class Method(ABC):
    """A method that trains slices of the classifier in rounds."""

    config: RunConfig

    @abstractmethod
    def deal(self, to: Dealing) -> list[Subnet]:
        """The subnets of this round; node i of those sampled trains number i modulo their count."""

    def scale(self, share: float) -> float:
        """What the hidden neurons of a slice of this share are multiplied by while it trains."""
        return 1 / share if self.config.rescale else 1.0

    def task(self, share: float, capacity: float) -> dict[str, float | str | list[float]]:
        """What a node of this capacity must know to train a slice of this share, by the keys of
        the protocol.
        """
        return {protocol.SCALE: self.scale(share)}

    def reply_bytes(self, shapes: Shapes) -> int:
        """Bytes of a trained slice of these shapes as it comes back, at most."""
        return encoded_bytes(shapes, self.config.up_codec)

    def reply_layout(self, sent: Params) -> Layout | None:
        """Shape and dtype of each array that a node answers to a slice; None where it answers with
        the slice encoded in `up-codec`.
        """
        return None

    def trained(self, back: Mapping[str, NDArray[Any]], sent: Params) -> Params:
        """The trained slice, float32 arrays named as in `sent`, the slice that went out.

        back: what came, decoded or as `reply_layout` says.

        An update is added to the slice as the server has it, so that what the codec loses on the
        way down is not lost to the classifier.
        """
        if self.config.reply == "slice":
            return dict(back)
        return {name: array + back[name] for name, array in sent.items()}

    def step(self, params: Params, merged: Params) -> Params:
        """The next classifier, of the present one and what the slices were merged to; float32
        arrays of the same names and shapes.
        """
        return merged

    def save(self) -> State:
        """What the method remembers between rounds."""
        return State()

    def restore(self, state: State) -> None:
        """Go on from what `save` gave; `state` may hold more. Nothing, unless it saves anything."""
        return


@dataclass
class ClosedForm(ABC):
    """A method without rounds: nodes send statistics of their embeddings once, the server solves.

    embed_dim: numbers in an embedding. num_classes: the server's.
    """

    config: RunConfig
    embed_dim: int
    num_classes: int

    @property
    @abstractmethod
    def statistics(self) -> str:
        """Which statistics are asked for: one of the protocol's words."""

    @abstractmethod
    def solve(self, found: Sequence[Any], start: Params) -> Params:
        """The classifier, of what the nodes sent.

        found: in the order of the nodes' names, at least one. start: a classifier as a run would
        begin to train it, float32 arrays named as in `fed_ist.classifier.layout`.
        """
