"""Accuracy against bytes as one run measured it, and its file: one JSON object a run."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fed_ist.errors import InputError


@dataclass(frozen=True)
class Setting:
    """What has to be equal for methods to be compared."""

    dataset: str
    partition: str
    clients: int


@dataclass(frozen=True)
class Curve:
    """One run of one method with one seed. Raises `InputError` for values that cannot be.

    bytes: of all messages of a client so far, down and up, the clients' mean, at each evaluation.
    accuracy: of the global model on the test images, in [0, 1], at each evaluation.
    device_seconds: a client's mean time of computing in the whole run.
    device_flops: a client's multiply-adds in the whole run; 0 if unknown.
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

    def __post_init__(self) -> None:
        for name in ("dataset", "partition", "method"):
            self._require(name, "a name", _is_text(getattr(self, name)))
        self._require("clients", "a whole number from 1 on", _is_whole(self.clients, 1))
        self._require("seed", "a whole number from 0 on", _is_whole(self.seed, 0))
        for name in ("device_seconds", "device_flops"):
            self._require(name, "a finite number from 0 on", _is_number(getattr(self, name)))
        for name in ("bytes", "accuracy"):
            value = getattr(self, name)
            self._require(name, "one number or more", isinstance(value, tuple) and len(value) > 0)
        are_whole = all(_is_whole(n_bytes, 0) for n_bytes in self.bytes)
        self._require("bytes", "whole numbers from 0 on", are_whole)
        ascending = list(self.bytes) == sorted(self.bytes)
        self._require("bytes", "sums, none of them below the one before it", ascending)
        are_shares = all(_is_number(share) and share <= 1 for share in self.accuracy)
        self._require("accuracy", "numbers from 0 to 1", are_shares)
        if len(self.bytes) != len(self.accuracy):
            raise InputError(
                f"bytes has {len(self.bytes)} numbers and accuracy {len(self.accuracy)}; "
                "an evaluation gives one of each."
            )

    def _require(self, name: str, accepted: str, ok: bool) -> None:
        if not ok:
            raise InputError(f"{name} = {getattr(self, name)!r} is not possible; it is {accepted}.")

    @property
    def setting(self) -> Setting:
        return Setting(self.dataset, self.partition, self.clients)

    def to_json(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str, path: Path) -> "Curve":
        """The inverse of `to_json`; `path` is the file that an `InputError` names."""
        names = [field.name for field in fields(cls)]
        try:
            values = json.loads(text)
            if not isinstance(values, dict) or set(values) != set(names):
                raise InputError(f"It has to be a JSON object of {', '.join(names)}.")
            for name in ("bytes", "accuracy"):
                if isinstance(values[name], list):
                    values[name] = tuple(values[name])
            return cls(**values)
        except ValueError as error:
            raise InputError(
                f"'{path}' is not a run of fed-ist compare: {str(error).rstrip('.')}. "
                "Delete it and compare again: then that run is repeated."
            ) from None


def read_curve(path: Path) -> Curve:
    """The run in a file; raises `InputError` where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"'{path}' cannot be read: {error}. "
            "Delete it and compare again: then that run is repeated."
        ) from None
    return Curve.from_json(text, path)


def by_setting(curves: Sequence[Curve]) -> dict[Setting, dict[str, list[Curve]]]:
    """Runs by setting and method: settings iid first, methods in the order in which they come.

    Raises `InputError` where a run is there twice: as two seeds it would make the spread too small.
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
                    f"{setting.partition}, {setting.clients} clients, with seed {curve.seed}. "
                    "Leave one of them out."
                )
            runs.append(curve)
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= float(str(value)) < math.inf
