"""What summary.json holds: how far a run has come and what it took."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fed_ist.config.methods import GROUPED
from fed_ist.config.run_config import RunConfig
from fed_ist.encoder.embeddings import Counts
from fed_ist.runs.folder import Round
from fed_ist.traffic import protocol
from fed_ist.traffic.ledger import DIRECTIONS, Ledger

# How far a run has come: the values of `state`.
RUNNING, FINISHED, ENDED_EARLY = "running", "finished", "ended-early"


@dataclass(frozen=True)
class Course:
    """What only the server knows of its run.

    nodes: what each node counted of its images when it was prepared (`protocol.PREPARED`). test:
    the same of the server's own images. ended_early: why the run ended before its last round; "" if
    it did not. is_done: whether the run is over.
    """

    nodes: Sequence[Mapping[str, int | float]]
    test: Counts
    embed_dim: int
    num_classes: int
    anchor_used: str
    ended_early: str
    is_done: bool


def summarise(
    config: RunConfig, rounds: Sequence[Round], ledger: Ledger, course: Course
) -> dict[str, object]:
    """The content of summary.json, in the order of its keys, for a run with one evaluation or more.

    Bytes are of all nodes in the whole run; those of images are the mean over images. Seconds go
    from the run's beginning to its last evaluation, as those of its rounds do. `groups` is 1
    where the strategy does not cut the classifier into groups.
    """
    total = {key: int(sum(node[key] for node in course.nodes)) for key in protocol.PREPARED}
    n_images = total[protocol.NUM_EXAMPLES]
    most_asked = max(row.asked for row in rounds) or len(course.nodes)
    return {
        "state": _state(course),
        "accuracy": rounds[-1].accuracy,
        "best_accuracy": max(row.accuracy for row in rounds),
        "loss": rounds[-1].loss,
        "rounds": rounds[-1].round,
        "ended_early": course.ended_early,
        "clients": len(course.nodes),
        **{key: _sum(rounds, key) for key in ("asked", "answered", "rejected")},
        "groups": (config.groups or most_asked) if config.strategy in GROUPED else 1,
        "anchor_used": course.anchor_used,
        "embed_dim": course.embed_dim,
        "num_classes": course.num_classes,
        **{f"bytes_{way}": ledger.message_bytes[way] for way in DIRECTIONS},
        **{f"payload_bytes_{way}": ledger.payload_bytes[way] for way in DIRECTIONS},
        **{f"link_bytes_{way}": ledger.link_bytes[way] for way in DIRECTIONS},
        "seconds": round(sum(row.seconds for row in rounds), 3),
        "images": n_images,
        "test_images": course.test.n_images,
        "images_skipped": total[protocol.IMAGES_SKIPPED] + course.test.n_skipped,
        "images_of_unknown_classes": total[protocol.UNKNOWN_CLASSES],
        "image_bytes_original": round(total[protocol.ORIGINAL_BYTES] / max(1, n_images), 1),
        "image_bytes_raw": round(total[protocol.RAW_BYTES] / max(1, n_images), 1),
        "image_bytes_packed": round(total[protocol.PACKED_BYTES] / max(1, n_images), 1),
    }


def _state(course: Course) -> str:
    if not course.is_done:
        return RUNNING
    return ENDED_EARLY if course.ended_early else FINISHED


def _sum(rounds: Iterable[Round], column: str) -> int:
    return sum(getattr(row, column) for row in rounds)
