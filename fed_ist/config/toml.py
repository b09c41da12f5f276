"""Run-config keys and their values as TOML: defaults, presets, `key=value` on a command line."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

from fed_ist.errors import InputError

Value = str | int | float | bool


def kebab(key: str) -> str:
    """The key in kebab-case, as TOML has it: `mask-ratio` for `mask_ratio`."""
    return key.replace("_", "-")


def write_toml(values: Mapping[str, Value]) -> str:
    """The keys and values as flat TOML.

    JSON's strings, numbers and booleans are valid TOML too.
    """
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def read_defaults(pyproject: Path) -> dict[str, Value]:
    """The run-config defaults of an app: `[tool.flwr.app.config]` of its pyproject.toml."""
    with pyproject.open("rb") as file:
        config: dict[str, Value] = tomllib.load(file)["tool"]["flwr"]["app"]["config"]
    return config


def read_preset(path: Path) -> dict[str, Value]:
    """The run-config keys of a TOML file; raises `InputError` where the file cannot be read."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise InputError(f"There is no preset '{path}'.") from None
    except (OSError, ValueError, RecursionError) as error:  # no TOML, or no UTF-8
        raise InputError(f"Preset '{path}' cannot be read: {error}.") from None


def absolute_paths(values: Mapping[str, Value]) -> dict[str, Value]:
    """The same run-config keys, in which paths that exist on this machine are absolute."""
    found = dict(values)
    words = ("", "scenes", "pretrained", "random")
    for key in ("dataset", "test-dataset", "encoder-weights"):
        value = found.get(key)
        if isinstance(value, str) and value not in words and Path(value).expanduser().exists():
            found[key] = str(Path(value).expanduser().resolve())
    return found


def parse_setting(setting: str) -> tuple[str, Value]:
    """The key and the value of a `key=value` from the command line.

    The key may have '-' or '_', and text may have quotes or not. Raises `InputError` without a '='.
    """
    key, separator, text = setting.partition("=")
    if not separator:
        raise InputError(f"--set {setting} is not possible: give key=value.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if not isinstance(value, str | int | float | bool):
        value = text
    return kebab(key.strip()), value
