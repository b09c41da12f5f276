"""Which method to take for a budget: of bytes, of hours on a link, or of joules of its radio.

The methods are those that were the best for their bytes on held-out training images of three data
sets: a linear head, a ridge regression with a linear head beside it, and one with IST. Each costs
more than the one before, and is taken where the budget pays for as many rounds as it takes to be
better than that. Bytes follow from the classes, the embedding and the number of nodes; they are
computed, without compression, and so rather too many.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fed_ist.classifier.layout import param_shapes
from fed_ist.errors import InputError
from fed_ist.statistics.coarse import COUNT_BYTES, coarse_shapes
from fed_ist.traffic.codecs import encoded_bytes
from fed_ist.traffic.links import Link, joules, wait_s
from fed_ist.traffic.packets import LinkBytes, bytes_of_message
from fed_ist.training.workload import MESSAGE_OVERHEAD_BYTES

CLASS_NAME_BYTES = 20  # of a class in the first message to a node
N_OBJECTS = 3  # of which a message consists
MOST_GROUPS = 8


@dataclass(frozen=True)
class Option:
    """A method that a budget may pay for.

    preset: whose settings it has, but for the number of rounds. anchor: "ridge", or "" for none.
    rounds: the least and the most. down_codec: in which slices travel to nodes. hidden_dim: of the
    classifier; 0 for a linear head.
    """

    name: str
    preset: str
    anchor: str
    rounds: tuple[int, int]
    down_codec: str = "eden2"
    hidden_dim: int = 0


OPTIONS = (
    Option("linear head", "smallest", "", (1, 6)),
    Option("ridge regression, then a linear head", "small", "ridge", (2, 6)),
    Option("ridge regression, then IST", "balanced", "ridge", (8, 16), "int4", 512),
    Option("ridge regression, then wide IST", "best", "ridge", (18, 20), "int4", 1024),
)
UP_CODEC = "eden1"  # of all of them


@dataclass(frozen=True)
class Problem:
    """What the bytes of a run depend on. n_nodes: which also deal the neurons, up to 8 groups."""

    num_classes: int
    embed_dim: int
    n_nodes: int

    def __post_init__(self) -> None:
        for name, value, least in (
            ("--classes", self.num_classes, 2),
            ("--embed-dim", self.embed_dim, 1),
            ("--nodes", self.n_nodes, 1),
        ):
            if value < least:
                raise InputError(f"{name} {value} is not possible: give {least} or more.")


@dataclass(frozen=True)
class Cost:
    """What a node receives and sends in a run: bytes of messages, and of packets on a link."""

    message_bytes: int
    link_bytes: LinkBytes


@dataclass(frozen=True)
class Choice:
    """A method with the number of rounds that a budget pays for."""

    option: Option
    n_rounds: int
    cost: Cost

    @property
    def arguments(self) -> str:
        """What `fed-ist run` is given for it."""
        return f"--preset {self.option.preset} --set num-rounds={self.n_rounds}"


def cost_of(option: Option, n_rounds: int, problem: Problem) -> Cost:
    """What a node receives and sends, at most, in a run of this many rounds."""
    classes, width = problem.num_classes, problem.embed_dim
    sent = [("down", CLASS_NAME_BYTES * classes), ("up", 0)]
    hidden = [option.hidden_dim // min(MOST_GROUPS, problem.n_nodes)] if option.hidden_dim else []
    shapes = param_shapes([width, *hidden, classes], "none")
    down, up = encoded_bytes(shapes, option.down_codec), encoded_bytes(shapes, UP_CODEC)
    first = -(-option.hidden_dim // 8)  # bits of its neurons: nodes draw the first slice themselves
    if option.anchor:
        sums = encoded_bytes(coarse_shapes(classes, width, with_root=True), "int8")
        sent += [("down", 0), ("up", sums + COUNT_BYTES * classes + 2 * width)]
        first += encoded_bytes({"weight": (classes, width), "bias": (classes,)}, "int8")
    for number in range(n_rounds):
        sent += [("down", down if number else first), ("up", up)]
    sizes = [(direction, n + MESSAGE_OVERHEAD_BYTES) for direction, n in sent]
    packets = [bytes_of_message(direction, n, N_OBJECTS) for direction, n in sizes]
    on_link = LinkBytes(sum(each.down for each in packets), sum(each.up for each in packets))
    return Cost(sum(n for _, n in sizes), on_link)


def choose(problem: Problem, is_paid: Callable[[Cost], bool]) -> Choice:
    """The last of `OPTIONS` of which enough rounds are paid for, with as many as are.

    is_paid: whether the budget covers a cost. Raises `InputError` where it covers none.
    """
    found = None
    for option in OPTIONS:
        least, most = option.rounds
        for n_rounds in range(least, most + 1):
            cost = cost_of(option, n_rounds, problem)
            if not is_paid(cost):
                break
            found = Choice(option, n_rounds, cost)
    if found is None:
        least = cost_of(OPTIONS[0], 1, problem).message_bytes
        raise InputError(
            f"The budget is too small for any method: a round of a linear head for "
            f"{problem.num_classes} classes and {problem.embed_dim} inputs takes {least} bytes of "
            "messages. Use an encoder with shorter embeddings, or a larger budget."
        )
    return found


def within_bytes(n_bytes: int) -> Callable[[Cost], bool]:
    """Whether messages, down and up together, take no more than `n_bytes`."""
    return lambda cost: cost.message_bytes <= n_bytes


def within_link(link: Link, hours: float | None, most_j: float | None) -> Callable[[Cost], bool]:
    """Whether a link carries a cost in these hours, with these joules of the radio; None: any.

    Raises `InputError` where joules are limited and nobody has published what the radio uses.
    """
    if most_j is not None and joules(link, LinkBytes(1, 1)) is None:
        raise InputError(
            f"Nobody has published what the radio of '{link.name}' uses. Give --hours."
        )

    def is_paid(cost: Cost) -> bool:
        used_j = joules(link, cost.link_bytes)
        in_time = hours is None or wait_s(link, cost.link_bytes) <= 3600 * hours
        return in_time and (most_j is None or used_j is None or used_j <= most_j)

    return is_paid
