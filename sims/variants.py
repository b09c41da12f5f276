"""Tables of what changes to one setting give, on AID: the runs, each once, and the Markdown."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fed_ist.config import Value, read_defaults
from fed_ist.curves import Curve
from fed_ist.durable import write_atomic
from fed_ist.errors import InputError
from fed_ist.known_encoder import open_encoder
from fed_ist.paths import cache_dir
from sims.case_files import Case, data_digest
from sims.cases import configure, require_same, run_cases
from sims.compare import USUAL
from sims.shared import embed_shared, open_shared


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
    root = Path(__file__).resolve().parent.parent
    out = root / "results" / name
    images: dict[str, Value] = {
        "dataset": str(data / "aid-train.parquet"),
        "test-dataset": str(data / "aid-test.parquet"),
    }
    base = read_defaults(root / "pyproject.toml") | USUAL | images | dict(common)
    config = configure(base)
    try:
        require_same(out, USUAL)
        encoder = open_encoder(config.encoder_spec, cache_dir(config.cache_dir))
        parts = open_shared(config, 0)
        data_used = data_digest(parts.train, parts.test, encoder)
        print(*parts.lines, sep="\n", file=sys.stderr)
        files = embed_shared(config, encoder, parts)
        found, failures = run_cases(list_cases(base), data_used, lambda _: files, out, 2)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    text = render([curve for _, curve in found])
    write_atomic(out / f"{name}.md", text.encode())
    print(text, *failures, sep="\n")
    return 1 if failures else 0
