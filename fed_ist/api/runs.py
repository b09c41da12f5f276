"""`fed_ist.load_run` and `fed_ist.train`: runs as Python objects."""

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.api.embed import Images, refuse, source_of
from fed_ist.encoder.frozen import Encoder
from fed_ist.errors import InputError
from fed_ist.runs.folder import Model
from fed_ist.runs.lookup import find_run
from fed_ist.runs.predict import classify_source, open_fitting
from fed_ist.runs.reading import RunFiles, open_run
from fed_ist.runs.tables import Row


class Run:
    """A run by its folder, finished or not. Each file is read when it is first asked for.

    path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"<fed_ist run {self.path}>"

    @cached_property
    def _files(self) -> RunFiles:
        return open_run(self.path)

    @property
    def rounds(self) -> Any:
        """What happened in each round: a pandas DataFrame, or without pandas a list of dicts."""
        return frame(self._files.rounds)

    @property
    def ledger(self) -> Any:
        """Every message with its bytes: a pandas DataFrame, or without pandas a list of dicts."""
        return frame(self._files.ledger)

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json: accuracy, bytes, what images there were."""
        return dict(self._files.required_summary)

    @property
    def accuracy(self) -> float:
        """The test accuracy after the last round, in [0, 1]."""
        return float(str(self._files.rounds[-1]["accuracy"]))

    @cached_property
    def model(self) -> Model:
        """The trained classifier, and everything that is needed to use it."""
        return self._files.model

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of `probabilities`."""
        return self.model.class_names

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """The probability of each class for each image: float32 (n, num_classes).

        images: as `fed_ist.embed` takes them. Raises `InputError` for an image that cannot be read.
        """
        found = classify_source(self.model, self._encoder, source_of(images), refuse)
        return np.stack([each.probabilities for each in found])

    def predict(self, images: Images) -> NDArray[np.str_]:
        """The likeliest class of each image: str (n,). For the argument see `probabilities`."""
        likeliest = self.probabilities(images).argmax(axis=1)
        return np.array([self.class_names[i] for i in likeliest], dtype=np.str_)

    @cached_property
    def _encoder(self) -> Encoder:
        return open_fitting(self.model)


def load_run(path: str | Path) -> Run:
    """A run by the path of its folder, or by its name; raises `InputError` where there is none."""
    return Run(find_run(Path(path)).resolve())


def train(
    images: str | Path,
    *,
    nodes: int = 4,
    preset: str = "",
    name: str = "",
    results: str | Path = "results",
    **settings: object,
) -> Run:
    """Train on simulated nodes, in one process beside this one, as `fed-ist run --engine inline`.

    images: a folder, a table or a name of the Hub. results: the folder for the run's own. settings:
    run-config keys with `_` for `-`, such as `num_rounds=10`. Raises `InputError` with what the run
    said where it could not be done.
    """
    name = name or f"{datetime.now():%Y%m%d-%H%M%S}-{preset or 'default'}"
    chosen = {key.replace("_", "-"): value for key, value in settings.items()}
    chosen["results-dir"] = str(Path(results).resolve())
    words = [str(images), "--engine", "inline", "--nodes", str(nodes), "--name", name]
    words += ["--preset", preset] if preset else []
    for key, value in chosen.items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    command = [sys.executable, "-m", "fed_ist", "run", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().removeprefix("fed-ist: ")
        raise InputError(said or f"The run ended with exit code {done.returncode}.")
    return load_run(Path(results) / name)


def frame(rows: Sequence[Row]) -> Any:
    """Rows as a pandas DataFrame where pandas is installed, else as a list of dicts."""
    try:
        import pandas
    except ImportError:
        return [dict(row) for row in rows]
    return pandas.DataFrame([dict(row) for row in rows])
