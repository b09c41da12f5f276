"""The curve of a run, accuracy against bytes, and its file: one JSON object for each run."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path

from fed_ist.errors import InputError
from fed_ist.files.seals import parse_sealed_json, sealed_json
from fed_ist.words import many


@dataclass(frozen=True)
class Setting:
    """What must be equal for methods to be compared."""

    dataset: str
    partition: str
    clients: int

    @property
    def words(self) -> str:
        """How the images are shared, and among how many clients."""
        return f"{self.partition}, {many(self.clients, 'client')}"


@dataclass(frozen=True)
class Curve:
    """One run of one method with one seed; raises `InputError` for values that are not possible.

    bytes: of all messages of a client so far, down and up, at each evaluation: the clients' mean.
    accuracy: of the global model on the test images, in [0, 1], at each evaluation.
    device_seconds: how long a client computes in the whole run, the clients' mean.
    device_flops: a client's multiply-adds in the whole run; 0 if unknown.
    link_bytes: as `bytes`, of the IP packets that carry the messages of a deployed client,
    estimated; empty if unknown, as in files of earlier versions.
    """

    dataset: str
    partition: str
    clients: int
    method: str
    seed: int
    bytes: tuple[int, ...]
    accuracy: tuple[float, ...]
    device_seconds: float
    device_flops: float
    link_bytes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("dataset", "partition", "method"):
            value = getattr(self, name)
            _require(isinstance(value, str) and bool(value.strip()), name, value, "a name")
        _require(_is_whole(self.clients, 1), "clients", self.clients, "a whole number from 1 on")
        _require(_is_whole(self.seed, 0), "seed", self.seed, "a whole number from 0 on")
        for name in ("device_seconds", "device_flops"):
            value = getattr(self, name)
            _require(_is_number(value), name, value, "a finite number from 0 on")
        for name in ("bytes", "accuracy"):
            value = getattr(self, name)
            _require(isinstance(value, tuple) and value != (), name, value, "one number or more")
        _require(isinstance(self.link_bytes, tuple), "link_bytes", self.link_bytes, "numbers")
        for name in ("bytes", "link_bytes"):
            for n_bytes in getattr(self, name):
                _require(_is_whole(n_bytes, 0), name, n_bytes, "whole numbers from 0 on")
            for pair in pairwise(getattr(self, name)):
                _require(pair[0] <= pair[1], name, pair, "sums, which never become smaller")
        for share in self.accuracy:
            _require(_is_number(share) and share <= 1, "accuracy", share, "numbers from 0 to 1")
        if len(self.bytes) != len(self.accuracy):
            raise InputError(
                f"bytes has {len(self.bytes)} numbers and accuracy {len(self.accuracy)}; "
                "an evaluation gives one of each."
            )
        if self.link_bytes and len(self.link_bytes) != len(self.bytes):
            raise InputError(
                f"link_bytes has {len(self.link_bytes)} numbers and bytes {len(self.bytes)}; "
                "an evaluation gives one of each."
            )

    @property
    def setting(self) -> Setting:
        """The setting in which the run was made."""
        return Setting(self.dataset, self.partition, self.clients)

    def to_json(self) -> str:
        """The run as a JSON object with a checksum."""
        return sealed_json(asdict(self)).decode()

    @classmethod
    def from_json(cls, text: str, path: Path) -> "Curve":
        """The run in a text that `to_json` made; raises `InputError` where it is none.

        path: the file that the message of an `InputError` names.
        """
        names = [field.name for field in fields(cls)]
        try:
            values = parse_sealed_json(text.encode())
            values = {"link_bytes": []} | values  # which files of earlier versions lack
            if set(values) != set(names):
                raise InputError(f"it has to be a JSON object of {', '.join(names)}.")
            for name in ("bytes", "accuracy", "link_bytes"):
                if isinstance(values[name], list):
                    values[name] = tuple(values[name])
            return cls(**values)
        except ValueError as error:
            raise InputError(
                f"'{path}' is not a run of fed-ist: {str(error).rstrip('.')}. "
                "Delete it and give the command again: then that run is repeated."
            ) from None


def read_curve(path: Path) -> Curve:
    """The run in a file; raises `InputError` where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"'{path}' cannot be read: {error}. "
            "Delete it and give the command again: then that run is repeated."
        ) from None
    return Curve.from_json(text, path)


def by_setting(curves: Sequence[Curve]) -> dict[Setting, dict[str, list[Curve]]]:
    """The runs by setting and method.

    Settings with iid partitions come first; methods are in the order of their first runs. Raises
    `InputError` where a run is there twice: counted as two seeds, it would make the spread too
    small.
    """
    found: dict[Setting, dict[str, list[Curve]]] = {}
    order = sorted(
        {curve.setting for curve in curves},
        key=lambda s: (s.dataset, s.partition != "iid", s.partition, s.clients),
    )
    for setting in order:
        methods = found.setdefault(setting, {})
        for curve in curves:
            if curve.setting != setting:
                continue
            runs = methods.setdefault(curve.method, [])
            if any(run.seed == curve.seed for run in runs):
                raise InputError(
                    f"There are two runs of {curve.method} on {setting.dataset}, "
                    f"{setting.words}, with seed {curve.seed}. Leave one of them out."
                )
            runs.append(curve)
    return found


def _require(ok: bool, name: str, value: object, accepted: str) -> None:
    if not ok:
        raise InputError(f"{name} = {value!r} is not possible; it is {accepted}.")


def _is_whole(value: object, least: int) -> bool:
    # 2**63 does not fit int64.
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
