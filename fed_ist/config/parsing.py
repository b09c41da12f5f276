"""From run-config keys to a `RunConfig`, and which keys a user may choose or change."""

import difflib
from collections.abc import Iterable, Mapping
from functools import lru_cache

from fed_ist.config.combinations import require_possible
from fed_ist.config.limits import NOUNS
from fed_ist.config.run_config import NEEDS, ROWS, TYPES, RunConfig
from fed_ist.errors import InputError


def parse_config(values: Mapping[str, object]) -> RunConfig:
    """Make a `RunConfig` of run-config keys.

    Raises `InputError` for a key that is unknown or missing, a value of the wrong type, a value
    that is not possible, and two values that do not go together.
    """
    # Nodes parse the same keys for each message. Types are in the cache's key because 1, 1.0
    # and True are equal in Python, and differ here.
    if all(isinstance(value, str | int | float) for value in values.values()):
        return _parse_once(tuple((key, type(value), value) for key, value in values.items()))
    return _parse(values)


@lru_cache(maxsize=8)
def _parse_once(items: tuple[tuple[str, type, object], ...]) -> RunConfig:
    return _parse({key: value for key, _, value in items})


def _parse(values: Mapping[str, object]) -> RunConfig:
    for key in values:
        if key not in TYPES:
            close = difflib.get_close_matches(key, TYPES, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise InputError(
                f"Unknown config key '{key}'.{hint} Known keys: {', '.join(sorted(TYPES))}."
            )
    missing = [key for key in TYPES if key not in values]
    if missing:
        raise InputError(f"Config keys are missing: {', '.join(missing)}.")
    typed = {key.replace("-", "_"): _typed(key, values[key], kind) for key, kind in TYPES.items()}
    config = RunConfig(**typed)  # type: ignore[arg-type]
    require_possible(config)
    return config


def _typed(key: str, value: object, kind: type) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and type(value) in (int, float):  # `--set bands=4` is read as a number
        return str(value)
    if type(value) is not kind:
        raise InputError(f"{key} = {value!r} is not possible: give {NOUNS[kind]}.")
    return value


def require_used(config: RunConfig, chosen: Iterable[str]) -> None:
    """Raise `InputError` for a key that a user set and that changes nothing in this run."""
    values = config.to_mapping()
    for key in chosen:
        if key in NEEDS:
            other, useful = NEEDS[key]
            if values[other] not in useful:
                raise InputError(
                    f"{key} = {values[key]!r} is of no use with {other} = {values[other]!r}. Leave "
                    f"it out, or use {other} = {' or '.join(useful)}."
                )


def require_same_run(config: RunConfig, began: RunConfig) -> None:
    """Raise `InputError` unless a run with the settings `began` may be resumed with `config`."""
    before = began.to_mapping()
    for key, value in config.to_mapping().items():
        if value != before[key] and not ROWS[key].may_change:
            others = ", ".join(name for name, row in ROWS.items() if row.may_change)
            raise InputError(
                f"{key} = {value!r}, but the run began with {before[key]!r}: it can be resumed "
                f"with the same settings only, but for {others}."
            )
