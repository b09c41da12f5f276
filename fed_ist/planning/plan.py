"""The whole budget of ways to train: bytes, time and energy of a node until an accuracy.

For each way:

- link: the bytes as `links.wait_s` says, lost packets and the pauses of a duty cycle included, and
  2 latency for each round trip;
- encoding: images / images a second;
- training: multiply-adds / multiply-adds a second, and step_s for each step of the optimiser;
- joules: what the radio uses for the bytes (`links.joules`), and the board's power while it encodes
  and while it trains.

Left out: waiting and idling, reading and masking images, computing statistics, and evaluation,
which is the server's.
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

# Of the best FedAvg run's final accuracy, where no accuracy is asked for.
SHARE_OF_FEDAVG = 0.95


@dataclass(frozen=True)
class Question:
    """What is asked of a plan, beside its runs and its link.

    accuracy: in (0, 1]; None for `default_accuracy`.
    n_round_trips: of a request with its reply; see `ways.ROUND_TRIPS`.
    images_per_s: that the device encodes, as measured; None for `encoding_speed`.
    vit_rounds: that FedAvg of the whole ViT takes; None for those of the FedAvg run.
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
    """A way's price by node; radio_j is None where nobody published the link's energy."""

    encode_s: float
    train_s: float
    link_s: float
    encode_j: float
    train_j: float
    radio_j: float | None

    @property
    def total_s(self) -> float:
        return self.encode_s + self.train_s + self.link_s

    @property
    def total_j(self) -> float | None:
        return None if self.radio_j is None else self.encode_j + self.train_j + self.radio_j


@dataclass(frozen=True)
class Plan:
    """All ways on one link.

    link_bytes: whether the bytes of runs are those on the link, or of messages.
    ways: each with its cost; None where it does not reach the accuracy.
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

    Raises `InputError` for runs that do not compare, or where a figure is missing.
    """
    require_comparable(runs)
    accuracy = question.accuracy or default_accuracy(runs)
    if accuracy <= 0:
        raise InputError("None of these runs got above 0%: give --accuracy, or runs that trained.")
    device, power_w = PROFILES[question.device], POWER_W[question.device]
    vit = read_vit(runs[0].settings)
    images_per_s = question.images_per_s or encoding_speed(runs[0], device, vit)
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
    """95% of the best FedAvg run's final accuracy, or of the best run's where there is none."""
    final = [run.final_accuracy for run in runs if run.strategy == "fedavg"]
    return SHARE_OF_FEDAVG * max(final or [run.final_accuracy for run in runs])


def encoding_speed(run: PlannedRun, device: Device, vit: Vit | None) -> float:
    """Images a second, rough: the encoder's multiply-adds at the speed of the device's training.

    On the machine that wrote this both do about as many a second: encoding 36 to 70 billion in nine
    measurements (as `bench encode`, at three ratios), training 47 to 56 billion in three
    (`clients.device.training_speed`). In float32.
    """
    if vit is None:
        raise InputError(
            f"What encoder '{run.text('encoder')}' computes is not known, as it is no plain "
            "vision transformer: give --images-per-s, as `fed-ist bench encode` measures it."
        )
    assert device.multiply_adds_per_s is not None
    return device.multiply_adds_per_s / vit.multiply_adds(count_kept(run, vit))


def price(way: Way, link: Link, device: Device, power_w: float, images_per_s: float) -> Cost | None:
    """What a way costs; None where it does not reach the accuracy. See the module's formulas.

    device: whose `multiply_adds_per_s` is known.
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
    """FedAvg of the whole ViT where its rounds are known, else why it is left out."""
    if vit is None:
        return [], ("FedAvg of the whole encoder is left out: it is no plain vision transformer.",)
    trained = [run for run in runs if run.strategy not in CLOSED_FORMS]
    reached = [
        (n_rounds, run)
        for run in trained
        if run.strategy == "fedavg" and (n_rounds := run.first_round(accuracy))
    ]
    n_rounds, like = min(reached, key=lambda pair: pair[0], default=(None, None))
    why = "(taken to be as many as of the classifier)"
    if question.vit_rounds and trained:
        n_rounds, like, why = question.vit_rounds, like or trained[0], "(as given)"
    if n_rounds is None or like is None:
        return [], (
            "FedAvg of the whole ViT is left out: no FedAvg run here trains up to the accuracy, "
            "so its rounds are not known (--vit-rounds).",
        )
    return [whole_vit_way(like, vit, n_rounds, why, question.n_round_trips)], ()
