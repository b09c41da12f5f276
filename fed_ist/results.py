"""The folder of one run: written as the run goes, so that a cut leaves what it had.

Tables are appended to line by line; every other file is written beside its place and renamed.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fed_ist.bands import parse_bands, parse_range
from fed_ist.config import RunConfig
from fed_ist.durable import write_atomic
from fed_ist.encoder_spec import EncoderSpec
from fed_ist.errors import InputError
from fed_ist.growing_table import GrowingTable
from fed_ist.heads import Params
from fed_ist.images import Reading
from fed_ist.paths import require_writable


@dataclass(frozen=True)
class Round:
    """One line of rounds.csv, and of times.csv. Bytes are of this round's messages as serialised;
    link bytes are what these take on the nodes' links, which runs of earlier versions lack (see
    `fed_ist.ledger`). Seconds are those of the server's clock.
    """

    round: int
    accuracy: float
    loss: float
    bytes_down: int
    bytes_up: int
    seconds: float
    asked: int
    answered: int
    rejected: int
    link_bytes_down: int
    link_bytes_up: int


@dataclass(frozen=True)
class Model:
    """A trained classifier and what is needed to use it.

    The fields with defaults are run-config keys that models from before there were such lack.
    """

    params: Params
    class_names: tuple[str, ...]
    encoder: str
    encoder_weights: str
    encoder_digest: str
    pooling: str
    mask: str
    mask_ratio: float
    seed: int
    bands: str = ""
    band_range: str = ""
    img_px: int = 0
    precision: str = "fp32"
    value_range: str = ""

    @property
    def reading(self) -> Reading:
        """How images are read, as in training."""
        return Reading(
            bands=parse_bands(self.bands, self.band_range),
            value_range=parse_range("value-range", self.value_range),
        )

    @property
    def encoder_spec(self) -> EncoderSpec:
        """The encoder that the classifier was trained on."""
        return EncoderSpec(
            name=self.encoder,
            weights=self.encoder_weights,
            pooling=self.pooling,
            seed=self.seed,
            in_chans=self.reading.n_channels,
            img_px=self.img_px,
            precision=self.precision,
        )


# Why a run ended before it was done, and where in the code, unless that was bad input.
REASON, TRACEBACK = "error.txt", "traceback.txt"
# Two runs of one seed differ in nothing but the time that they take, so it has a table of its own.
TIME_COLUMNS = ["round", "seconds"]
ROUND_COLUMNS = [field.name for field in fields(Round) if field.name != "seconds"]


class RunFolder:
    """`results/<name>/`, which must not exist before."""

    def __init__(self, parent: Path, name: str) -> None:
        self.path = parent / name
        require_writable(parent, "results-dir")
        try:
            self.path.mkdir()
        except FileExistsError:
            raise InputError(
                f"'{self.path}' exists already, and no run is ever overwritten. "
                "Choose another --name, or move it away."
            ) from None
        self._table = GrowingTable(self.path / "rounds.csv", ROUND_COLUMNS)
        self._times = GrowingTable(self.path / "times.csv", TIME_COLUMNS)
        self.rounds: list[Round] = []

    @classmethod
    def reopen(cls, path: Path, last_round: int) -> "RunFolder":
        """The folder of a run that was cut, without what came after its last complete round."""
        folder = cls.__new__(cls)
        folder.path = path
        for part in path.glob(".*.part"):
            part.unlink()
        for told in (REASON, TRACEBACK):
            (path / told).unlink(missing_ok=True)

        folder._table, rows = GrowingTable.reopen(
            path / "rounds.csv", ROUND_COLUMNS, lambda row: int(row["round"]) <= last_round
        )
        kept = {row["round"] for row in rows}
        folder._times, times = GrowingTable.reopen(
            path / "times.csv", TIME_COLUMNS, lambda row: row["round"] in kept
        )
        folder.rounds = [
            Round(**{f.name: f.type((row | time)[f.name]) for f in fields(Round)})  # type: ignore[operator]
            for row, time in zip(rows, times, strict=True)
        ]
        return folder

    def write_config(self, config: RunConfig, n_nodes: int) -> None:
        """config.toml: everything that was resolved, and the command that repeats the run."""
        preset, again = shlex.quote(str(self.path / "config.toml")), f"{self.path.name[:90]}-again"
        command = (
            f"# Repeat this run: fed-ist run --nodes {n_nodes} --preset {preset} "
            f"--name {shlex.quote(again)}\n"
        )
        text = command + config.to_toml()
        write_atomic(self.path / "config.toml", text.encode(errors="backslashreplace"))

    def add_round(self, row: Round) -> None:
        line = asdict(row)
        # The time first: who sees a round sees how long it took.
        self._times.add({name: line[name] for name in TIME_COLUMNS})
        self._times.settle()
        self._table.add({name: line[name] for name in ROUND_COLUMNS})
        self._table.settle()
        self.rounds.append(row)

    def write_images(self, images: Mapping[str, object]) -> None:
        """images.json: what was found of the data set (see `fed_ist.inspection`)."""
        write_atomic(self.path / "images.json", (json.dumps(images, indent=2) + "\n").encode())

    def read_images(self) -> dict[str, Any]:
        """images.json as it is; empty where there is none."""
        try:
            found: dict[str, Any] = json.loads((self.path / "images.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found

    def write_summary(self, summary: Mapping[str, object]) -> None:
        write_atomic(self.path / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())

    def write_model(self, model: Model) -> None:
        extras = {key: value for key, value in vars(model).items() if key != "params"}
        data = save(model.params, metadata={"fed-ist": json.dumps(extras)})
        write_atomic(self.path / "model.safetensors", data)


def read_model(run: Path) -> Model:
    """The model of a finished run; raises `InputError` where there is none."""
    path = run / "model.safetensors"
    if not path.is_file():
        raise InputError(f"'{run}' is no run with a model: there is no '{path}'.")
    try:
        with safe_open(path, framework="numpy") as file:
            extras = json.loads(file.metadata()["fed-ist"])
            params = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"'{path}' is cut short or not a fed-ist model ({error}).") from None
    extras["class_names"] = tuple(extras["class_names"])
    return Model(params=params, **extras)


def read_summary(run: Path) -> dict[str, object]:
    """summary.json of a run; raises `InputError` where there is none."""
    try:
        summary: dict[str, object] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"'{run}' has no readable summary.json: {error}.") from None
    return summary
