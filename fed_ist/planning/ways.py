"""Ways to train, and what each asks of a node, whatever the link and the device.

For runs, this is taken from their ledgers. For ways that nobody ran (sending raw images, packed
images or embeddings, and training a whole ViT) it is computed from the runs' figures, and the note
says so.
"""

from dataclasses import dataclass

from fed_ist.config.methods import CLOSED_FORMS
from fed_ist.encoder.cost import Vit
from fed_ist.images.masks import MASKS, count_visible
from fed_ist.planning.runs import PlannedRun
from fed_ist.training.local import LocalTraining
from fed_ist.training.workload import Workload

# How often one side waits for the other, from a request to a node until its reply has arrived.
# Flower 1.42 with TLS, messages of three objects, which are pulled and pushed two at a time: four
# HTTP requests and a connection (two round trips) down, three and a connection up.
ROUND_TRIPS = 11
UPLOAD_ROUND_TRIPS = 3  # one TCP connection, its TLS 1.3, one request
FLOAT_BYTES = 4
NAMES = {
    "fedavg": "FedAvg of the classifier",
    "fed3r": "class statistics: ridge regression (Fed3R)",
    "fedncm": "class statistics: class means (FedNCM)",
    "fedpft": "class statistics: Gaussians (FedPFT)",
    "ist": "IST",
}


@dataclass(frozen=True)
class Demand:
    """What a way asks of a node in all, whatever its link and its speed.

    n_encoded: images that pass through the encoder. train_multiply_adds: of all training.
    n_steps: of the optimiser.
    """

    bytes_down: float
    bytes_up: float
    n_round_trips: float
    n_encoded: float = 0.0
    train_multiply_adds: float = 0.0
    n_steps: float = 0.0


@dataclass(frozen=True)
class Way:
    """One way to train.

    run: the name of the run that measured it; "" for a computed way.
    round: the round in which the run reached the accuracy; None where it did not, and for computed
    ways.
    demand: None where the accuracy is not reached.
    note: a sentence on how the figures were found, or "".
    """

    name: str
    run: str
    round: int | None
    demand: Demand | None
    note: str


def measured_way(run: PlannedRun, accuracy: float, link_bytes: bool, n_round_trips: float) -> Way:
    """What a run took until its first evaluation with the accuracy: the mean over its nodes.

    link_bytes: whether to count bytes on the link, which the ledger must then have; otherwise bytes
    of messages. n_round_trips: of a request with its reply.
    """
    last = run.first_round(accuracy)
    name, note = _describe(run)
    if last is None:
        best = max(run.accuracies.values())
        note = " ".join([f"Its best accuracy is {100 * best:.1f}%.", note]).strip()
        return Way(name, run.name, None, None, note)
    sent = [message for message in run.sent if message.round <= last]
    weighed = [m.link_bytes if link_bytes else m.message_bytes for m in sent]
    requests = [message.kind for message in sent if message.direction == "down"]
    n_trainings = requests.count("train") / run.n_nodes
    multiply_adds, n_steps, n_passes = _round_work(run)
    redrawn = MASKS[run.text("mask")].per_pass  # then each pass encodes the images again
    demand = Demand(
        bytes_down=sum(pair[0] for pair in weighed if pair) / run.n_nodes,
        bytes_up=sum(pair[1] for pair in weighed if pair) / run.n_nodes,
        n_round_trips=n_round_trips * len(requests) / run.n_nodes,
        n_encoded=run.images_per_node * (max(1, n_trainings * n_passes) if redrawn else 1),
        train_multiply_adds=n_trainings * multiply_adds,
        n_steps=n_trainings * n_steps,
    )
    return Way(name, run.name, last, demand, note)


def upload_ways(run: PlannedRun) -> list[Way]:
    """Sending a node's images or embeddings to a server once, computed from a run's figures."""
    n_images = run.images_per_node
    taken = "a server that trains on them is taken to reach the accuracy"
    each = {
        "raw image files to a server": (
            run.number("image_bytes_original"), 0.0,
            "as they are, JPEG or other",
        ),
        "masked packed images to a server": (
            run.number("image_bytes_packed"), 0.0,
            f"mask-ratio {run.text('mask-ratio')}, codec {run.text('codec')}",
        ),
        "embeddings to a server": (
            FLOAT_BYTES * run.number("embed_dim"), n_images,
            f"{run.number('embed_dim'):.0f} numbers in float32",
        ),
    }  # fmt: skip
    return [
        Way(
            name,
            "",
            None,
            Demand(0.0, n_images * n_bytes, UPLOAD_ROUND_TRIPS, n_encoded),
            f"{n_images:,.1f} images of {n_bytes:,.0f} B ({what}); {taken}.",
        )
        for name, (n_bytes, n_encoded, what) in each.items()
        if n_bytes  # a generated data set has no files
    ]


def whole_vit_way(run: PlannedRun, vit: Vit, n_rounds: int, why: str, n_round_trips: float) -> Way:
    """FedAvg that trains and sends the encoder too, in rounds with as many passes as the run's.

    why: in brackets, where the number of rounds is from. Training takes three times the
    multiply-adds of a forward pass, as `layout.multiply_adds` says.
    """
    _, n_steps, n_passes = _round_work(run)
    n_bytes = float(FLOAT_BYTES * vit.n_params * n_rounds)
    forward = vit.multiply_adds(count_kept(run, vit))
    demand = Demand(
        bytes_down=n_bytes,
        bytes_up=n_bytes,
        n_round_trips=n_round_trips * n_rounds,
        train_multiply_adds=3.0 * forward * n_passes * run.images_per_node * n_rounds,
        n_steps=float(n_steps * n_rounds),
    )
    note = (
        f"{vit.n_params:,} parameters in float32, {n_rounds} rounds {why} of {n_passes} passes; "
        "the classifier is not counted."
    )
    return Way("FedAvg of the whole ViT", "", None, demand, note)


def count_kept(run: PlannedRun, vit: Vit) -> int:
    """How many patches of an image a run's encoder sees."""
    return count_visible(vit.n_patches, float(run.text("mask-ratio")))


def _round_work(run: PlannedRun) -> tuple[float, int, int]:
    """(multiply-adds, optimiser steps, passes over the images) of a node's training in a round."""
    if run.strategy in CLOSED_FORMS:
        return 0.0, 0, 0
    n_images = max(1, round(run.images_per_node))
    how = LocalTraining(
        run.whole("local-epochs", 1), run.whole("local-steps", 0), run.whole("batch-size", 1),
        run.text("optimizer"), float(run.text("learning-rate")),
    )  # fmt: skip
    n_steps = how.count_steps(n_images)
    work = Workload(
        embed_dim=round(run.number("embed_dim")),
        hidden_dim=run.whole("hidden-dim", 1),
        num_classes=round(run.number("num_classes")),
        hidden_layers=run.whole("hidden-layers", 2),  # runs of earlier versions lack both
        norm=str(run.settings.get("norm", "none")),
        optimizer=how.optimizer,
        batch_size=how.batch_size,
        n_examples=n_images,
        n_seen=how.count_seen(n_images),
        n_steps=n_steps,
    )
    n_neurons = max(1, round(work.hidden_dim / run.number("groups")))
    return work.multiply_adds(n_neurons), n_steps, how.count_passes(n_images)


def _describe(run: PlannedRun) -> tuple[str, str]:
    """(the name of a run's way, a note on what its figures leave out)"""
    name = NAMES.get(run.strategy, run.strategy)
    if run.settings.get("anchor", "none") != "none":
        name += ", anchored"
    codecs = [
        f"{direction} in {codec}"
        for direction in ("down", "up")
        if (codec := run.settings.get(f"{direction}-codec", "fp32")) != "fp32"
    ]
    if codecs:
        name += f", slices {' and '.join(codecs)}"
    sized = run.settings.get("capacities", "1") != "1" or run.settings.get("round-deadline-s", 0.0)
    note = "Slices differ in size; training is counted as if they were equal." if sized else ""
    return name, note
