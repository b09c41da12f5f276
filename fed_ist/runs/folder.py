"""The folder of one run: written as the run goes, so that a cut leaves what it had.

Tables are appended to line by line; every other file is written beside its place and renamed.
"""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fed_ist.classifier.layout import Params
from fed_ist.config.run_config import RunConfig
from fed_ist.config.toml import write_toml
from fed_ist.encoder.spec import EncoderSpec
from fed_ist.errors import InputError
from fed_ist.files.atomic import write_atomic
from fed_ist.files.growing_csv import GrowingTable
from fed_ist.files.paths import require_writable
from fed_ist.files.sealed_tensors import load_sealed, save_sealed
from fed_ist.files.seals import Seal, seal_of, sealed_json
from fed_ist.images.bands import parse_bands, parse_range
from fed_ist.images.source import Reading
from fed_ist.runs.seals import (
    CONFIG,
    IMAGES,
    LEDGER,
    MODEL,
    OWN,
    ROUNDS,
    SUMMARY,
    TIMES,
    RunSeals,
    forget_told,
    read_object,
    write_seals,
)


@dataclass(frozen=True)
class Round:
    """One line of rounds.csv, and of times.csv. Bytes are of this round's messages as serialised;
    link bytes are what these take on the nodes' links, which runs of earlier versions lack (see
    `fed_ist.traffic.ledger`). Seconds are those of the server's clock.
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

    def __post_init__(self) -> None:
        for field in fields(Model):
            value, kind = getattr(self, field.name), field.type
            if kind in (str, int, float) and type(value) is not kind:
                raise ValueError(f"its {field.name} is {value!r}")
        if not all(isinstance(name, str) for name in self.class_names):
            raise ValueError("its class_names are not text")

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
FIGURE = "accuracy.png"  # drawn at the end
NO_MODEL = "not a fed-ist model"
# Two runs of one seed differ in nothing but the time that they take, so it has a table of its own.
TIME_COLUMNS = ["round", "seconds"]
ROUND_COLUMNS = [field.name for field in fields(Round) if field.name != "seconds"]


# How a refusal begins by which the loser of a race for a name is told from other runs.
NAME_TAKEN = "The run's name is taken: "
NAME_TAKEN_CODE = 3  # the exit code of its process


class NameTakenError(InputError):
    """Another run has the folder: it is not to be told what ended this one."""


class RunFolder:
    """`results/<name>/`, which must not exist before; raises `NameTakenError` where it does."""

    def __init__(self, parent: Path, name: str) -> None:
        self.path = parent / name
        require_writable(parent, "results-dir")
        try:
            self.path.mkdir()
        except FileExistsError:
            raise NameTakenError(
                f"{NAME_TAKEN}'{self.path}' exists already, and no run is ever overwritten. "
                "Choose another --name, or move it away."
            ) from None
        self._table = GrowingTable(self.path / ROUNDS, ROUND_COLUMNS)
        self._times = GrowingTable(self.path / TIMES, TIME_COLUMNS)
        self._config = Seal()
        self.rounds: list[Round] = []

    @classmethod
    def reopen(cls, path: Path, seals: RunSeals, tables: Mapping[str, bytes]) -> "RunFolder":
        """The folder of a run that was cut, without what came after its last complete round.

        seals, tables: what its files were after that round, and the bytes of its tables as they are
        now (see `reading.read_resumable`).
        """
        folder = cls.__new__(cls)
        folder.path, folder._config = path, seals.files[CONFIG]
        for part in path.glob(".*.part"):
            part.unlink()
        forget_told(path, REASON, TRACEBACK)
        write_seals(path, seals)  # first, as these never tell of more than there is
        folder._table, rows = GrowingTable.reopen(
            path / ROUNDS, tables[ROUNDS], ROUND_COLUMNS, seals.files[ROUNDS], lambda _: False
        )
        folder._times, times = GrowingTable.reopen(
            path / TIMES, tables[TIMES], TIME_COLUMNS, seals.files[TIMES], lambda _: False
        )
        folder.rounds = [
            Round(**{f.name: f.type((row | time)[f.name]) for f in fields(Round)})  # type: ignore[operator]
            for row, time in zip(rows, times, strict=True)
        ]
        return folder

    def seal(self, ledger: Seal) -> RunSeals:
        """Write checksums.json, once all that it tells of is on the disk; returns what it says.

        ledger: the seal of ledger.csv.
        """
        files = {CONFIG: self._config, ROUNDS: self._table.seal, TIMES: self._times.seal}
        own = tuple(name for name in OWN if (self.path / name).exists())
        seals = RunSeals({**files, LEDGER: ledger}, own)
        write_seals(self.path, seals)
        return seals

    def finish(self, ledger: Seal) -> None:
        """Seal each file to its end, as nothing grows any more."""
        seals = self.seal(ledger)
        load_sealed(self.path / MODEL, NO_MODEL, is_old_read=False)
        for name in (SUMMARY, IMAGES):
            read_object(self.path, name, seals)
        others = {name: seal_of((self.path / name).read_bytes()) for name in seals.own}
        write_seals(self.path, RunSeals({**seals.files, **others}, seals.own, is_done=True))

    def write_config(self, config: RunConfig, n_nodes: int) -> None:
        """config.toml: everything that was resolved, and the command that repeats the run."""
        preset, again = shlex.quote(str(self.path / "config.toml")), f"{self.path.name[:90]}-again"
        command = (
            f"# Repeat this run: fed-ist run --nodes {n_nodes} --preset {preset} "
            f"--name {shlex.quote(again)}\n"
        )
        data = (command + write_toml(config.to_mapping())).encode(errors="backslashreplace")
        write_atomic(self.path / CONFIG, data)
        self._config = seal_of(data)

    def add_round(self, row: Round) -> None:
        line = asdict(row)
        # The time first: who sees a round sees how long it took.
        self._times.add({name: line[name] for name in TIME_COLUMNS})
        self._times.settle()
        self._table.add({name: line[name] for name in ROUND_COLUMNS})
        self._table.settle()
        self.rounds.append(row)

    def write_images(self, images: Mapping[str, Any]) -> None:
        """images.json: what was found of the data set (see `fed_ist.datasets.inspection`)."""
        write_atomic(self.path / IMAGES, sealed_json(images, indent=2))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        write_atomic(self.path / SUMMARY, sealed_json(summary, indent=2))

    def write_model(self, model: Model) -> None:
        extras = {key: value for key, value in vars(model).items() if key != "params"}
        write_atomic(self.path / MODEL, save_sealed(model.params, extras))
