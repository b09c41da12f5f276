"""The folder of one run as it is written: after each round it holds everything so far.

Tables grow line by line. Every other file is written under a temporary name and then renamed, so
that a run that is cut leaves whole files.
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
from fed_ist.runs.confusion import Confusion, confusion_csv
from fed_ist.runs.seals import (
    CONFIG,
    CONFUSION,
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
    """One line of rounds.csv, with its seconds, which are in times.csv.

    Bytes are those of this round's messages as serialised. Link bytes are what these messages take
    on the nodes' links (see `fed_ist.traffic.ledger`); runs of earlier versions have none. Seconds
    are by the server's clock.
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
    """A trained classifier and everything that is needed to use it.

    params: float32 arrays, named as in `fed_ist.classifier.layout`, and those that statistics gave.
    The fields with defaults are run-config keys that models of earlier versions lack. Raises
    `ValueError` where a field has another type than its own.
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
        """How images are read: the same way as in training."""
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


# Why a run ended before it was done, and the traceback, unless bad input was the reason.
REASON, TRACEBACK = "error.txt", "traceback.txt"
FIGURE = "accuracy.png"  # drawn at the end
KEPT = "kept.png"  # images as nodes keep them, see `fed_ist.reports.kept_images`
NO_MODEL = "not a fed-ist model"
# Two runs of one seed differ in the time that they take alone, so that has a table of its own.
TIME_COLUMNS = ["round", "seconds"]
ROUND_COLUMNS = [field.name for field in fields(Round) if field.name != "seconds"]


# Begins the message of `NameTakenError`, by which `fed-ist run` finds it in Flower's log.
NAME_TAKEN = "The run's name is taken: "
NAME_TAKEN_CODE = 3  # the exit code of its process


class NameTakenError(InputError):
    """Another run has the folder already, so this run must not write there, not even its error."""


class RunFolder:
    """The folder of a run that is written: `results/<name>/`.

    It must not exist before: raises `NameTakenError` where it does.
    rounds: the rounds that have been written.
    """

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
        """The folder of a run that was cut, without what was written after its last complete round.

        seals: of its files after that round. tables: the bytes of its tables now (see
        `reading.read_resumable`).
        """
        folder = cls.__new__(cls)
        folder.path, folder._config = path, seals.files[CONFIG]
        for temporary in path.glob(".*.part"):
            temporary.unlink()
        forget_told(path, REASON, TRACEBACK)
        write_seals(path, seals)  # first: they must never tell of more than the files hold
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
        """Write checksums.json, once everything in it is on the disk; returns what it says.

        ledger: the seal of ledger.csv.
        """
        files = {CONFIG: self._config, ROUNDS: self._table.seal, TIMES: self._times.seal}
        own = tuple(name for name in OWN if (self.path / name).exists())
        seals = RunSeals({**files, LEDGER: ledger}, own)
        write_seals(self.path, seals)
        return seals

    def finish(self, ledger: Seal) -> None:
        """Seal every file to its end, once the run is over and no file grows any more.

        ledger: the seal of ledger.csv.
        """
        seals = self.seal(ledger)
        load_sealed(self.path / MODEL, NO_MODEL, is_old_read=False)
        for name in (SUMMARY, IMAGES):
            read_object(self.path, name, seals)
        told = [CONFUSION] if (self.path / CONFUSION).exists() else []
        others = {name: seal_of((self.path / name).read_bytes()) for name in (*seals.own, *told)}
        write_seals(self.path, RunSeals({**seals.files, **others}, seals.own, is_done=True))

    def write_config(self, config: RunConfig, n_nodes: int) -> None:
        """Write config.toml: all settings, and the command that repeats the run."""
        preset, again = shlex.quote(str(self.path / "config.toml")), f"{self.path.name[:90]}-again"
        command = (
            f"# Repeat this run: fed-ist run --nodes {n_nodes} --preset {preset} "
            f"--name {shlex.quote(again)}\n"
        )
        data = (command + write_toml(config.to_mapping())).encode(errors="backslashreplace")
        write_atomic(self.path / CONFIG, data)
        self._config = seal_of(data)

    def add_round(self, row: Round) -> None:
        """Append a round to rounds.csv and times.csv."""
        line = asdict(row)
        # The time goes first, so that a reader who finds a round also finds its seconds.
        self._times.add({name: line[name] for name in TIME_COLUMNS})
        self._times.settle()
        self._table.add({name: line[name] for name in ROUND_COLUMNS})
        self._table.settle()
        self.rounds.append(row)

    def write_images(self, images: Mapping[str, Any]) -> None:
        """Write images.json: what was found in the data set (see `fed_ist.datasets.inspection`)."""
        write_atomic(self.path / IMAGES, sealed_json(images, indent=2))

    def write_confusion(self, confusion: Confusion) -> None:
        """Write confusion.csv: what the last classifier takes the test images for."""
        text = confusion_csv(confusion)
        write_atomic(self.path / CONFUSION, text.encode(errors="backslashreplace"))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace summary.json (see `fed_ist.runs.summary`)."""
        write_atomic(self.path / SUMMARY, sealed_json(summary, indent=2))

    def write_model(self, model: Model) -> None:
        """Replace model.safetensors."""
        extras = {key: value for key, value in vars(model).items() if key != "params"}
        write_atomic(self.path / MODEL, save_sealed(model.params, extras))
