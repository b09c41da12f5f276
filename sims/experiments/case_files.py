"""What a run's file is called: all that its result depends on, so that none serves for another."""

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

RESULTS = 2  # counts the ways of running that there have been: results of an older are not served
DIGEST_CHARS = 12
# Keys that say where something lies. Of images and weights it is their content that counts.
PLACES = {
    "name", "resume", "results-dir", "cache-dir", "dataset", "test-dataset", "encoder-weights",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One run. method: how reports call it. config, attack: all that it depends on but images.

    attack: what some of the clients do.
    """

    dataset: str
    partition: str
    clients: int
    method: str
    config: RunConfig
    attack: Attack = NO_ATTACK

    @property
    def label(self) -> str:
        """Which run it is, for people; without a '-' but between its parts."""
        parts = (self.dataset, self.partition, str(self.clients), self.method)
        words = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in parts)
        return f"{words}-{self.config.seed}"

    def file_name(self, data: str) -> str:
        """Another one whenever the result may be another. data: see `data_digest`."""
        keys = self.config.to_mapping().items()
        settings = {key: value for key, value in keys if key not in PLACES}
        own = digest(
            RESULTS, data, settings, self.dataset, self.partition, self.clients, self.method,
            asdict(self.attack),
        )  # fmt: skip
        return f"{self.label}-{own[:DIGEST_CHARS]}.json"


def data_digest(train: ImageSource, test: ImageSource, encoder: AnyEncoder) -> str:
    """Changes whenever the images of an experiment or their encoder do."""
    return digest(train.signature, test.signature, encoder.digest)


def tell_of_others(runs: Path, cases: Sequence[Case], data: str) -> None:
    """Say how many results there are of these runs by name that other settings gave."""
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
