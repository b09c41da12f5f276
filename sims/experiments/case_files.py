"""The file of a run among many, whose name depends on all that its result depends on."""

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fed_ist.config.run_config import RunConfig
from fed_ist.encoder.known import AnyEncoder
from fed_ist.files.cache import digest
from fed_ist.images.source import ImageSource
from sims.experiments.attackers import NO_ATTACK, Attack

RESULTS = 2  # raised when runs are made in another way, so that older results are not used
DIGEST_CHARS = 12
# Keys that say where something is: of images and weights, the content counts instead.
PLACES = {
    "name", "resume", "results-dir", "cache-dir", "dataset", "test-dataset", "encoder-weights",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One run of an experiment.

    method: its name in reports. config: its settings. attack: what some of the clients do. The
    result depends on these two and on the images.
    """

    dataset: str
    partition: str
    clients: int
    method: str
    config: RunConfig
    attack: Attack = NO_ATTACK

    @property
    def label(self) -> str:
        """The name of the run for people; it has no '-' but those between its fields."""
        names = (self.dataset, self.partition, str(self.clients), self.method)
        words = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", name) for name in names)
        return f"{words}-{self.config.seed}"

    def file_name(self, data: str) -> str:
        """The file of the run's result; its name differs where the result may.

        data: see `data_digest`.
        """
        keys = self.config.to_mapping().items()
        settings = {key: value for key, value in keys if key not in PLACES}
        own = digest(
            RESULTS, data, settings, self.dataset, self.partition, self.clients, self.method,
            asdict(self.attack),
        )  # fmt: skip
        return f"{self.label}-{own[:DIGEST_CHARS]}.json"


def data_digest(train: ImageSource, test: ImageSource, encoder: AnyEncoder) -> str:
    """A digest that changes whenever the images of an experiment or their encoder do."""
    return digest(train.signature, test.signature, encoder.digest)


def tell_of_others(runs: Path, cases: Sequence[Case], data: str) -> None:
    """Say how many results with these labels are there that other settings gave."""
    asked, labels = {case.file_name(data) for case in cases}, {case.label for case in cases}
    others = [
        path.name
        for path in runs.glob("*.json")
        if path.name not in asked and {path.stem, path.stem.rpartition("-")[0]} & labels
    ]
    if others:
        results = "1 older result" if len(others) == 1 else f"{len(others)} older results"
        were = "was" if len(others) == 1 else "were"
        print(
            f"{results} in '{runs}' {were} made by other settings, images or an older fed-ist, and "
            "left alone.",
            file=sys.stderr,
        )
