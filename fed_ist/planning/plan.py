"""What each way to train takes of a node until an accuracy: bytes, time and energy.

For each way:

- link: the bytes take what `links.wait_s` says, lost packets and the pauses of a duty cycle
  included, and each round trip takes twice the latency;
- encoding: images / images a second;
- training: multiply-adds / multiply-adds a second, and step_s for each step of the optimiser;
- joules: what the radio uses for the bytes (`links.joules`), and the board's power for as long as
  it encodes and trains.

Left out: waiting and idling, reading and masking images, computing statistics, and evaluation,
which the server does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fed_ist.config.methods import CLOSED_FORMS
from fed_ist.encoder.cost import Vit, read_vit
from fed_ist.errors import InputError, require_choice
from fed_ist.planning.runs import PlannedRun, require_comparable
from fed_ist.planning.ways import (
    ROUND_TRIPS,
    Way,
    count_kept,
    measured_way,
    upload_ways,
    whole_vit_way,
)
from fed_ist.traffic.links import Link, joules, wait_s
from fed_ist.traffic.packets import LinkBytes
from fed_ist.training.boards import POWER_W, PROFILES, Device

# Where no accuracy is asked for, it is this share of the best FedAvg run's final accuracy.
SHARE_OF_FEDAVG = 0.95


@dataclass(frozen=True)
class Question:
    """What a plan is asked for, in addition to its runs and its links.

    accuracy: in (0, 1]; None for `default_accuracy`.
    device: the name of a board, a key of `PROFILES`.
    n_round_trips: of a request with its reply; see `ways.ROUND_TRIPS`.
    images_per_s: how many images the device encodes a second, as measured; None for an estimate.
    vit_rounds: the rounds that FedAvg of the whole ViT takes; None for those of the FedAvg run.
    Raises `InputError` for values that are not possible.
    """

    accuracy: float | None = None
    device: str = "pi-4"
    n_round_trips: float = ROUND_TRIPS
    images_per_s: float | None = None
    vit_rounds: int | None = None

    def __post_init__(self) -> None:
        require_choice("device", self.device, PROFILES)
        if self.accuracy is not None and not 0 < self.accuracy <= 1:
            raise InputError(
                f"--accuracy {self.accuracy:g} is not possible: give a number in (0, 1]."
            )
        if not 0 <= self.n_round_trips < float("inf"):
            raise InputError(
                f"--round-trips {self.n_round_trips:g} is not possible: give a number from 0 on."
            )
        if self.images_per_s is not None and not 0 < self.images_per_s < float("inf"):
            raise InputError(
                f"--images-per-s {self.images_per_s:g} is not possible: give a number above 0."
            )


@dataclass(frozen=True)
class Cost:
    """What a way takes of one node, in seconds and joules.

    radio_j: None where nobody has published what the link's radio uses.
    """

    encode_s: float
    train_s: float
    link_s: float
    encode_j: float
    train_j: float
    radio_j: float | None

    @property
    def total_s(self) -> float:
        """The seconds of all together."""
        return self.encode_s + self.train_s + self.link_s

    @property
    def total_j(self) -> float | None:
        """The joules of all together; None where those of the radio are not known."""
        return None if self.radio_j is None else self.encode_j + self.train_j + self.radio_j


@dataclass(frozen=True)
class Plan:
    """All ways to an accuracy on one link.

    link_bytes: whether the bytes of runs are those on the link; otherwise they are of messages.
    ways: each with its cost, which is None where the way does not reach the accuracy.
    left_out: sentences on ways that could not be computed.
    """

    accuracy: float
    link: Link
    question: Question
    images_per_s: float
    link_bytes: bool
    n_nodes: int
    ways: tuple[tuple[Way, Cost | None], ...]
    left_out: tuple[str, ...]


def make_plans(runs: Sequence[PlannedRun], links: Sequence[Link], question: Question) -> list[Plan]:
    """A plan for each link.

    Raises `InputError` for runs that cannot be compared, and where a figure is missing.
    """
    require_comparable(runs)
    accuracy = question.accuracy or default_accuracy(runs)
    if accuracy <= 0:
        raise InputError("None of these runs got above 0%: give --accuracy, or runs that trained.")
    device, power_w = PROFILES[question.device], POWER_W[question.device]
    vit = read_vit(runs[0].settings)
    images_per_s = question.images_per_s or estimate_encoding_speed(runs[0], device, vit)
    link_bytes = all(run.has_link_bytes for run in runs)
    whole_vit, left_out = _whole_vit(runs, accuracy, question, vit)
    if not runs[0].number("image_bytes_original"):
        left_out += ("Raw image files are left out: this data set has none.",)
    ways = [
        *upload_ways(runs[0]),
        *whole_vit,
        *(measured_way(run, accuracy, link_bytes, question.n_round_trips) for run in runs),
    ]
    return [
        Plan(
            accuracy=accuracy,
            link=link,
            question=question,
            images_per_s=images_per_s,
            link_bytes=link_bytes,
            n_nodes=runs[0].n_nodes,
            ways=tuple((way, price(way, link, device, power_w, images_per_s)) for way in ways),
            left_out=left_out,
        )
        for link in links
    ]


def default_accuracy(runs: Sequence[PlannedRun]) -> float:
    """95% of the best FedAvg run's final accuracy; of the best run's where no run is of FedAvg."""
    final = [run.final_accuracy for run in runs if run.strategy == "fedavg"]
    return SHARE_OF_FEDAVG * max(final or [run.final_accuracy for run in runs])


def estimate_encoding_speed(run: PlannedRun, device: Device, vit: Vit | None) -> float:
    """A rough estimate of how many images a device encodes a second, in float32.

    It assumes that the device encodes with as many multiply-adds a second as it trains with. On the
    machine where this was written that was about so: encoding made 36 to 70 billion a second in
    nine measurements (as `bench encode`, at three ratios), training 47 to 56 billion in three
    (`clients.device.training_speed`). Raises `InputError` where the encoder's multiply-adds are not
    known.
    """
    if vit is None:
        raise InputError(
            f"What encoder '{run.text('encoder')}' computes is not known, as it is no plain "
            "vision transformer: give --images-per-s, as `fed-ist bench encode` measures it."
        )
    assert device.multiply_adds_per_s is not None
    return device.multiply_adds_per_s / vit.multiply_adds(count_kept(run, vit))


def price(way: Way, link: Link, device: Device, power_w: float, images_per_s: float) -> Cost | None:
    """What a way costs by the formulas above; None where it does not reach the accuracy.

    device: one whose `multiply_adds_per_s` is known. power_w: of the device while it computes, in
    W.
    """
    asked = way.demand
    if asked is None:
        return None
    assert device.multiply_adds_per_s is not None
    sent = LinkBytes(round(asked.bytes_down), round(asked.bytes_up))
    encode_s = asked.n_encoded / images_per_s
    train_s = asked.train_multiply_adds / device.multiply_adds_per_s
    train_s += asked.n_steps * (device.step_s or 0)
    return Cost(
        encode_s=encode_s,
        train_s=train_s,
        link_s=wait_s(link, sent) + 2 * link.latency_s * asked.n_round_trips,
        encode_j=power_w * encode_s,
        train_j=power_w * train_s,
        radio_j=joules(link, sent),
    )


def _whole_vit(
    runs: Sequence[PlannedRun], accuracy: float, question: Question, vit: Vit | None
) -> tuple[list[Way], tuple[str, ...]]:
    """FedAvg of the whole ViT where its rounds are known; otherwise why it is left out."""
    if vit is None:
        return [], ("FedAvg of the whole encoder is left out: it is no plain vision transformer.",)
    trained = [run for run in runs if run.strategy not in CLOSED_FORMS]
    reached = [
        (n_rounds, run)
        for run in trained
        if run.strategy == "fedavg" and (n_rounds := run.first_round(accuracy))
    ]
    n_rounds, like = min(reached, key=lambda pair: pair[0], default=(None, None))
    why = "(taken to be those of the classifier)"
    if question.vit_rounds and trained:
        n_rounds, like, why = question.vit_rounds, like or trained[0], "(as given)"
    if n_rounds is None or like is None:
        return [], (
            "FedAvg of the whole ViT is left out: no FedAvg run here trains up to the accuracy, "
            "so its rounds are not known (--vit-rounds).",
        )
    return [whole_vit_way(like, vit, n_rounds, why, question.n_round_trips)], ()
