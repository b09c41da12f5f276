"""What fed-ist wrote and a disk, a cable or an editor has changed: refused in one sentence, made
again where it was a cache's, or read as the right values; never a traceback, never other values.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
from damage import Tally, try_damages
from run_folders import make_whole_run
from typer.testing import CliRunner

from fed_ist.cli.main import cli
from fed_ist.comparisons.curves import Curve, read_curve
from fed_ist.comparisons.probe_table import ProbeRow, open_probe_folder, write_probe_rows
from fed_ist.config.parsing import parse_config
from fed_ist.config.toml import write_toml
from fed_ist.datasets.kept_column import BYTES, NOTHING, PATH, KeptColumn, Piece
from fed_ist.encoder.embeddings import Counts, Embeddings, load_cached, store
from fed_ist.encoder.weight_files import find_weights
from fed_ist.errors import InputError
from fed_ist.files.cache import keep, recall
from fed_ist.images.packing import PackedImages, PackLayout, write_packed
from fed_ist.planning.plan import Question, make_plans
from fed_ist.planning.runs import planned_run
from fed_ist.planning.table import render_plans
from fed_ist.pretraining.average import MovingAverage
from fed_ist.pretraining.checkpoints import load_checkpoint, save_checkpoint, save_encoder
from fed_ist.pretraining.stages import PretrainConfig
from fed_ist.reports.link_costs import sum_node_rounds
from fed_ist.reports.run_data import collect
from fed_ist.reports.run_sections import build_sections
from fed_ist.reports.table import render_table
from fed_ist.reports.watch import follow
from fed_ist.runs.folder import RunFolder
from fed_ist.runs.reading import open_run, read_resumable, read_run
from fed_ist.runs.seals import write_told
from fed_ist.traffic.ledger import Ledger
from fed_ist.traffic.links import choose_links
from sims.experiments.cases import require_same

FEW, MANY = 40, 2000
CUT, DONE = 2, 3  # rows of rounds.csv
NOT_YET = pytest.param(MANY, marks=pytest.mark.slow)


def told(values: object) -> str:
    """Values as text, so that equal ones are equal."""

    def plain(value: object) -> object:
        return value.tolist() if hasattr(value, "tolist") else vars(value)

    return json.dumps(values, default=plain, sort_keys=True)


def resume(run: Path) -> str:
    """What a run goes on from, as `fed-ist run --resume` and then its server read it."""
    resumed = read_resumable(run)
    checkpoint, tables = resumed.checkpoint, resumed.tables
    config = parse_config(resumed.settings)
    clients = resumed.summary["clients"]
    folder = RunFolder.reopen(run, checkpoint.seals, tables)
    seal = checkpoint.seals.files["ledger.csv"]
    ledger = Ledger.reopen(run / "ledger.csv", tables["ledger.csv"], seal)
    read_run(run)
    figures = [asdict(row) for row in folder.rounds], vars(ledger)["message_bytes"]
    arrays = checkpoint.params | checkpoint.state.arrays
    state = checkpoint.round, arrays, checkpoint.state.values
    return told([write_toml(config.to_mapping()), clients, resumed.images, figures, state])


def report(run: Path) -> str:
    """All that a report shows, but notes on lines that were left out."""
    data = collect([read_run(run)])
    build_sections(data)
    for found in data["runs"]:
        found["notes"] = [note for note in found["notes"] if "is cut and left out" not in note]
    return json.dumps(data, allow_nan=False)


def report_of_cut(run: Path) -> str:
    return report(run)


def table(run: Path) -> str:
    return render_table([open_run(run)])


def watch(run: Path) -> str:
    lines: list[str] = []
    follow(run, lines.append)
    return "\n".join(lines)


def predict(run: Path) -> str:
    return told(open_run(run).model)


def links(run: Path) -> str:
    return told(sum_node_rounds(open_run(run)))


def plan(run: Path) -> str:
    asked = Question(images_per_s=10.0, accuracy=0.5)
    return render_plans(make_plans([planned_run(open_run(run))], choose_links(["nb-iot"]), asked))


READ_BY: dict[Callable[[Path], str], tuple[int, tuple[str, ...]]] = {
    resume: (
        CUT,
        (
            *("checkpoint.safetensors", "config.toml", "rounds.csv", "times.csv", "ledger.csv"),
            *("summary.json", "images.json"),  # by the seals of the checkpoint
        ),
    ),
    report_of_cut: (CUT, ("rounds.csv", "times.csv", "ledger.csv", "config.toml")),
    report: (
        DONE,
        (
            *("rounds.csv", "times.csv", "ledger.csv", "config.toml", "summary.json"),
            *("images.json", "checksums.json", "error.txt"),
        ),
    ),
    table: (DONE, ("summary.json", "config.toml")),
    watch: (DONE, ("rounds.csv", "times.csv", "config.toml", "summary.json", "error.txt")),
    predict: (DONE, ("model.safetensors", "checksums.json")),
    links: (DONE, ("ledger.csv",)),
    plan: (DONE, ("summary.json", "config.toml", "rounds.csv", "ledger.csv")),
}
OF_RUNS = [(read, name) for read, (_, names) in READ_BY.items() for name in names]
IDS = [f"{read.__name__}-{name}" for read, name in OF_RUNS]


def require_none_other(tally: Tally, n: int) -> None:
    print(f"{n} damages: {tally}")
    assert not tally.others, "\n".join(tally.others[:20])
    assert tally.refused + tally.right == n


@pytest.mark.parametrize("n", [FEW, NOT_YET])
@pytest.mark.parametrize(("read", "name"), OF_RUNS, ids=IDS)
def test_a_damaged_file_of_a_run_is_refused_or_read_as_it_was(read, name, n, tmp_path, make_config):
    n_rows, _ = READ_BY[read]
    config = make_config(num_rounds=2 if n_rows == DONE else 5, encoder_weights="random")
    run, other = (
        make_whole_run(tmp_path / str(seed), "run", config, n_rows, seed) for seed in (0, 1)
    )
    if name == "error.txt":
        write_told(run, name, "Too few nodes.\n")
        write_told(other, name, "The disk is full.\n")
        read = said(read)
    if name == "config.toml":
        (other / name).write_text((run / name).read_text().replace("fixed", "grid"))
    tally = try_damages(run, name, (other / name).read_bytes(), read, tmp_path / "copy", n)
    require_none_other(tally, n)
    assert tally.refused > n / 2


def said(read: Callable[[Path], str]) -> Callable[[Path], str]:
    """What `read` tells of a run that ended with an error: `watch` raises it."""

    def read_run_of(run: Path) -> str:
        try:
            return read(run)
        except InputError as error:
            if str(error) == "Too few nodes.":
                return str(error)
            raise

    return read_run_of


@pytest.mark.parametrize("n", [FEW, NOT_YET])
@pytest.mark.parametrize("read", [report, table, watch, predict, links, plan])
def test_a_run_of_an_earlier_version_gives_no_traceback_however_it_is_damaged(
    read, n, tmp_path, make_config
):
    """It has no checksums, so that values may be others: those that cannot be are refused."""
    config = make_config(num_rounds=2, encoder_weights="random")
    run = make_whole_run(tmp_path, "run", config, DONE)
    (run / "checksums.json").unlink()
    for name in ("summary.json", "images.json"):
        values = json.loads((run / name).read_text())
        del values["checksum"]
        (run / name).write_text(json.dumps(values, indent=2))
    for name in READ_BY[read][1]:
        if (run / name).exists() and name != "checksums.json":
            tally = try_damages(run, name, b"{}", read, tmp_path / "copy", n // 4, lambda _: True)
            require_none_other(tally, n // 4)


def test_a_refusal_tells_the_file_what_is_whole_and_what_to_do(tmp_path, make_config):
    run = make_whole_run(tmp_path, "run", make_config(num_rounds=5), CUT)
    path = run / "rounds.csv"
    path.write_text(path.read_text().replace("0.6", "0.9"))
    with pytest.raises(InputError) as refusal:
        read_run(run)
    assert f"'{path}' is damaged" in str(refusal.value)
    assert "ledger.csv, images.json, summary.json, model.safetensors" in str(refusal.value)
    assert "`fed-ist predict` works" in str(refusal.value)
    with pytest.raises(InputError, match=r"cannot be resumed from its checkpoint of round 1: "):
        read_resumable(run)
    (run / "checksums.json").unlink()  # as the sentence says, who edited it by hand may
    assert read_run(run).rounds[1]["accuracy"] == 0.9


def test_a_table_that_grows_while_it_is_read_is_no_damage(tmp_path, make_config):
    run = make_whole_run(tmp_path, "run", make_config(num_rounds=5), CUT)
    with (run / "times.csv").open("a") as file:
        file.write("2,0.5\r\n")
    with (run / "rounds.csv").open("a") as file:
        file.write("2,0.7,1.5,1,2,3,4,5,6,7\r\n3,0.")
    assert [row["round"] for row in read_run(run).rounds] == [0, 1, 2]


def test_resuming_keeps_what_was_sent_after_the_last_whole_round(tmp_path, make_config, caplog):
    run = make_whole_run(tmp_path, "run", make_config(num_rounds=5), CUT)
    before = (run / "ledger.csv").read_bytes()
    sent = b"2,0,down,train,100,110,3,150,40\r\n"
    with (run / "ledger.csv").open("ab") as file:
        file.write(sent + bytes(300))  # as a power cut leaves it
    resume(run)
    assert (run / "ledger.csv").read_bytes() == before + sent
    assert "300 bytes of ledger.csv" in caplog.text


@pytest.mark.parametrize("command", ["table", "report", "watch", "predict", "plan", "links"])
def test_the_commands_refuse_a_damaged_run_with_exit_code_2(command, tmp_path, make_config):
    run = make_whole_run(tmp_path, "run", make_config(num_rounds=2), DONE)
    for name in ("rounds.csv", "ledger.csv", "summary.json", "model.safetensors"):
        data = bytearray((run / name).read_bytes())
        data[len(data) // 2] ^= 1
        (run / name).write_bytes(data)
    more = [str(tmp_path)] if command == "predict" else []
    with pytest.raises(InputError):
        CliRunner().invoke(cli, [command, str(run), *more], catch_exceptions=False)


@dataclass(frozen=True)
class Kept:
    """Something that is kept in a folder. make: the folder, of a seed. read: what is in it.

    is_made_again: where that says None. is_other_fine: whether another of its kind is one too.
    """

    files: tuple[str, ...]
    make: Callable[[Path, int], None]
    read: Callable[[Path], object]
    is_made_again: bool = False
    is_other_fine: bool = False


def make_packed(codec: str, is_common: bool) -> Callable[[Path, int], None]:
    def make(folder: Path, seed: int) -> None:
        rng = np.random.default_rng(seed)
        layout = PackLayout((2, 2), 8, 2, codec, 30, (0, 2) if is_common else None)
        visible = rng.permuted(np.tile(np.arange(4), (15, 1)), axis=1)[:, :2]
        batches = (
            (
                rng.integers(0, 256, (15, 16, 16, 3), dtype=np.uint8),
                np.array([0, 2]) if is_common else visible,
                rng.integers(0, 5, 15),
                rng.integers(1, 10_000, 15),
            )
            for _ in range(2)
        )
        list(write_packed(folder / "packed", layout, batches, f"key {seed}"))

    return make


def read_packed(folder: Path) -> str:
    packed = PackedImages(folder / "packed", "key 0")
    counts = packed.n_images, packed.n_skipped, packed.original_bytes, packed.raw_bytes
    return told([counts, [vars(batch) for batch in packed.batches()]])


def make_embeddings(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, labels = rng.random((40, 8), dtype=np.float32), rng.integers(0, 3, 40)
    store(folder / f"entry{seed}", Embeddings(values, labels, Counts(40, seed, 2, 3, 4)))
    if seed:
        (folder / f"entry{seed}").rename(folder / "entry0")


def read_embeddings(folder: Path) -> str | None:
    found = load_cached(folder / "entry0")
    return found and told([found.values, found.labels, found.counts])


def make_entry(folder: Path, seed: int) -> None:
    keep(folder / f"entry{seed}", f'{{"digest": "{seed}abc"}}'.encode())
    if seed:
        (folder / f"entry{seed}").rename(folder / "entry0")


def pieces(seed: int) -> list[Piece]:
    images = [(bytes([seed] * (50 + i)), BYTES) for i in range(20)]
    return [*images, (b"", NOTHING), (b"a/b.jpg", PATH)]


def make_column(folder: Path, seed: int) -> None:
    KeptColumn(folder / f"table-{seed}.images", lambda: pieces(seed))
    if seed:
        (folder / f"table-{seed}.images").rename(folder / "table-0.images")


def read_column(folder: Path) -> object:
    column = KeptColumn(folder / "table-0.images", lambda: pieces(0))
    return [column.get(i) for i in range(len(column))], column.absent.tolist()


def make_curve(folder: Path, seed: int) -> None:
    curve = Curve("aid", "iid", 4, "ist", seed, (10, 200), (0.5, 0.625), 1.5, 2e9)
    (folder / "case.json").write_text(curve.to_json())


def read_own_curve(folder: Path) -> object:
    found = read_curve(folder / "case.json")
    if found.seed == 1:  # as `sims.experiments.cases` tells another case's from its own
        raise InputError("another")
    return found


def make_settings(folder: Path, seed: int) -> None:
    require_same(folder, {"seed": seed, "images": "abc", "share": 0.25})


def read_settings(folder: Path) -> str:
    require_same(folder, {"seed": 0, "images": "abc", "share": 0.25})
    return "the same"


def make_probe(folder: Path, seed: int) -> None:
    open_probe_folder(folder, {"seed": seed})
    row = ProbeRow("grid", 0.5, 0.25 + seed, 1.0, 0.75, 0.01, 2, 100, 20)
    write_probe_rows(folder, [row])
    write_probe_rows(folder, [row, row])


def read_probe(folder: Path) -> object:
    return open_probe_folder(folder, {"seed": 0})


def make_pretrained(folder: Path, seed: int) -> None:
    import torch

    torch.manual_seed(seed)
    model = torch.nn.Linear(4, 3)
    config = PretrainConfig(seed=seed)
    optimizer = torch.optim.AdamW(model.parameters())
    history = {"mae": [0.5 + seed]}
    average = MovingAverage(model, 0.9)
    save_checkpoint(
        folder / "checkpoint.pt", model, average, model, optimizer, history, config, "images"
    )
    save_encoder(folder / "encoder.safetensors", model, {}, history, config)


def read_pretrained(folder: Path) -> object:
    found = load_checkpoint(folder / "checkpoint.pt", PretrainConfig(), "cpu")
    return found and told(found)  # None: it begins anew


def read_weights(folder: Path) -> str:
    return told(find_weights(folder / "encoder.safetensors", ["weight", "bias"]).weights)


ENTRY = ("entry0/embeddings.npy", "entry0/labels.npy", "entry0/counts.json")
KEPT = {
    "packed raw": Kept(("packed",), make_packed("raw", False), read_packed),
    "packed raw, one mask": Kept(("packed",), make_packed("raw", True), read_packed),
    "packed jpeg": Kept(("packed",), make_packed("jpeg", False), read_packed),
    "embeddings": Kept(ENTRY, make_embeddings, read_embeddings, True),
    "entry": Kept(("entry0",), make_entry, lambda folder: recall(folder / "entry0"), True),
    "table": Kept(("table-0.images",), make_column, read_column, True),
    "curve": Kept(("case.json",), make_curve, read_own_curve),
    "settings": Kept(("settings.json",), make_settings, read_settings),
    "probe": Kept(("probe.json", "probe.csv", "checksums.json"), make_probe, read_probe),
    "pre-training": Kept(("checkpoint.pt",), make_pretrained, read_pretrained, True),
    "weights": Kept(("encoder.safetensors",), make_pretrained, read_weights, is_other_fine=True),
}
OF_KEPT = [(what, name) for what, kept in KEPT.items() for name in kept.files]


@pytest.mark.parametrize("n", [FEW, NOT_YET])
@pytest.mark.parametrize(("what", "name"), OF_KEPT, ids=[" ".join(pair) for pair in OF_KEPT])
def test_what_is_kept_and_damaged_is_refused_or_made_again(what, name, n, tmp_path, caplog):
    caplog.set_level(logging.CRITICAL)
    kept = KEPT[what]
    for folder, seed in ((tmp_path / "0" / "kept", 0), (tmp_path / "1" / "kept", 1)):
        folder.mkdir(parents=True)
        kept.make(folder, seed)
    whole, other = tmp_path / "0" / "kept", tmp_path / "1" / "kept" / name
    expected = [kept.read(whole)]
    if kept.is_made_again:
        expected.append(None)
    if kept.is_other_fine:
        expected.append(kept.read(other.parent))
    tally = try_damages(
        whole,
        name,
        other.read_bytes(),
        kept.read,
        tmp_path / "copy",
        n,
        lambda found: found in expected,
    )
    require_none_other(tally, n)
