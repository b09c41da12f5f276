"""Tables of what changes to one setting give, on AID: the runs, each once, and the Markdown."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fed_ist.config.derive import encoder_spec
from fed_ist.config.toml import Value, read_defaults
from fed_ist.curves import Curve
from fed_ist.durable import write_atomic
from fed_ist.errors import InputError
from fed_ist.known_encoder import open_encoder
from fed_ist.paths import cache_dir
from sims.case_files import Case, data_digest
from sims.cases import configure, require_same, run_cases
from sims.compare import USUAL
from sims.shared import embed_shared, open_shared

ROOT = Path(__file__).resolve().parent.parent


def run_variants(
    data: Path,
    name: str,
    common: Mapping[str, Value],
    list_cases: Callable[[Mapping[str, Value]], list[Case]],
    render: Callable[[Sequence[Curve]], str],
) -> int:
    """Run what is missing in results/NAME and write NAME.md there; returns an exit code.

    data: the folder of aid-train.parquet and aid-test.parquet. common: what all runs have beside
    `compare.USUAL`.
    """
    images: dict[str, Value] = {
        "dataset": str(data / "aid-train.parquet"),
        "test-dataset": str(data / "aid-test.parquet"),
    }
    try:
        curves, failures = run_on(images, ROOT / "results" / name, common, list_cases)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return show(name, render(curves), failures)


def run_on(
    images: Mapping[str, Value],
    out: Path,
    common: Mapping[str, Value],
    list_cases: Callable[[Mapping[str, Value]], list[Case]],
) -> tuple[list[Curve], list[str]]:
    """The curves of all cases on these images, of which those are run that `out` has not got yet;
    and what is wrong with those that could not be run.

    images: the run-config keys that say which. Raises `InputError` for images that cannot be read.
    """
    base = read_defaults(ROOT / "pyproject.toml") | USUAL | dict(images) | dict(common)
    config = configure(base)
    require_same(out, USUAL)
    encoder = open_encoder(encoder_spec(config), cache_dir(config.cache_dir))
    parts = open_shared(config, 0)
    data_used = data_digest(parts.train, parts.test, encoder)
    print(*parts.lines, sep="\n", file=sys.stderr)
    files = embed_shared(config, encoder, parts)
    found, failures = run_cases(list_cases(base), data_used, lambda _: files, out, 2)
    return [curve for _, curve in found], failures


def show(name: str, text: str, failures: Sequence[str]) -> int:
    """Write a table to results/NAME/NAME.md and print it; returns an exit code."""
    write_atomic(ROOT / "results" / name / f"{name}.md", text.encode())
    print(text, *failures, sep="\n")
    return 1 if failures else 0
