"""A run that is cut and resumed ends as if nothing had happened, bit for bit."""

import csv
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from faulty_grid import FaultyGrid
from federation import NODES

from fed_ist.config.derive import encoder_spec, open_run_data
from fed_ist.config.run_config import RunConfig
from fed_ist.encoder.embeddings import Counts, Embeddings, load_cached, store
from fed_ist.encoder.frozen import create_encoder
from fed_ist.errors import InputError
from fed_ist.files.atomic import STALE_S, sweep, temporary_path, write_atomic
from fed_ist.files.growing_csv import GrowingTable
from fed_ist.images.packing import PackedImages, PackLayout, write_packed
from fed_ist.runs.checkpoint import (
    CHECKPOINT_FILE,
    Checkpoint,
    State,
    read_checkpoint,
    write_checkpoint,
)
from fed_ist.runs.folder import Round, RunFolder
from fed_ist.runs.reading import read_resumable, read_run
from fed_ist.traffic.ledger import Ledger, Transfer
from sims.server_app import open_run_folder, run

MODEL = "model.safetensors"


class CutError(BaseException):
    """The server is gone."""


class CutGrid(FaultyGrid):
    """Ends the run in its round `cut_in`: before nodes are asked, or when they have trained."""

    cut_in, cut_late = 0, False

    def push_messages(self, messages):
        messages = list(messages)
        self.is_last = any(
            m.metadata.message_type == "train" and m.metadata.group_id == str(self.cut_in)
            for m in messages
        )
        if self.is_last and not self.cut_late:
            raise CutError
        return super().push_messages(messages)

    def pull_messages(self, message_ids):
        yield from super().pull_messages(message_ids)
        if self.is_last:
            raise CutError


@pytest.fixture
def serve(make_config, image_folder, embedded):
    """Runs a ServerApp's whole work on nodes in this process; returns the run's folder."""

    def serve(name, *, cut_in=0, cut_late=False, resume=False, grid_class=CutGrid, **changes):
        settings = {
            "dataset": str(image_folder),
            "encoder_weights": "random",
            "cache_dir": embedded,
            "hidden_dim": 24,
            "local_epochs": 1,
            "batch_size": 8,
            "num_rounds": 4,
        }
        config = make_config(**(settings | changes | {"name": name, "resume": resume}))
        grid = grid_class(config, NODES)
        grid.cut_in, grid.cut_late = cut_in, cut_late
        folder, resumed = open_run_folder(config)
        encoder = create_encoder(encoder_spec(config))
        run(grid, config, encoder, open_run_data(config), folder, resumed)
        return folder.path

    return serve


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


WAYS = {
    "ist": {"capacities": "1,0.2,0.2"},
    "anchored": {"anchor": "ridge", "dealing": "rotating", "statistics_noise": 0.1},
    "few-bits": {
        "anchor": "ridge", "anchor_bytes": 40_000, "down_codec": "int4", "up_codec": "int4",
        "reply": "update", "statistics_codec": "fp16", "zstd": True,
    },
    "fedavgm": {"strategy": "fedavgm"},
    "fedadam": {"strategy": "fedadam", "norm": "batch", "fraction_nodes": 0.7},
    "fedrolex": {"strategy": "fedrolex", "capacities": "0.5", "learning_rate_schedule": "cosine"},
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cut_late", [False, True], ids=["before", "after-training"])
def test_a_resumed_run_ends_at_the_same_model_bit_for_bit(way, cut_late, serve):
    whole = serve("whole", **WAYS[way])
    with pytest.raises(CutError):
        serve("cut", cut_in=3, cut_late=cut_late, **WAYS[way])
    resumed = serve("cut", resume=True, **WAYS[way])
    assert (whole / MODEL).read_bytes() == (resumed / MODEL).read_bytes()
    columns = ("round", "accuracy", "loss", "asked", "answered")
    courses = [
        [[row[name] for name in columns] for row in rows(path / "rounds.csv")]
        for path in (whole, resumed)
    ]
    assert courses[0] == courses[1]


def test_a_run_that_is_cut_again_and_again_ends_at_the_same_model_too(serve):
    whole = serve("whole", anchor="ridge")
    for number, resume in ((1, False), (1, True), (2, True), (4, True)):
        with pytest.raises(CutError):
            serve("cut", cut_in=number, resume=resume, anchor="ridge")
    resumed = serve("cut", resume=True, anchor="ridge")
    assert (whole / MODEL).read_bytes() == (resumed / MODEL).read_bytes()


def test_a_run_that_is_cut_after_its_last_round_gets_its_report(serve, monkeypatch):
    def cut(*_):
        raise CutError

    with monkeypatch.context() as patched, pytest.raises(CutError):
        patched.setattr("sims.server_app.write_run_report", cut)
        serve("cut")
    path = serve("cut", resume=True)
    assert (path / "report.html").exists()
    assert not (path / CHECKPOINT_FILE).exists()
    assert len(rows(path / "rounds.csv")) == 5


def test_the_ledger_keeps_what_a_cut_round_sent_and_the_rounds_add_up_to_it(serve):
    with pytest.raises(CutError):
        serve("cut", cut_in=2, cut_late=True)
    path = serve("cut", resume=True)
    ledger, rounds = rows(path / "ledger.csv"), rows(path / "rounds.csv")
    asked = [r for r in ledger if (r["round"], r["direction"], r["kind"]) == ("2", "down", "train")]
    assert len(asked) == 2 * len(NODES)  # once in vain
    summary = json.loads((path / "summary.json").read_text())
    for direction in ("down", "up"):
        sent = [int(r["message_bytes"]) for r in ledger if r["direction"] == direction]
        assert summary[f"bytes_{direction}"] == sum(sent)
        assert sum(int(r[f"bytes_{direction}"]) for r in rounds) == sum(sent)


def test_a_limit_of_bytes_holds_over_both_parts_of_a_run(serve):
    changes = {"max_bytes_per_node": 60_000, "num_rounds": 30}
    with pytest.raises(CutError):
        serve("cut", cut_in=2, cut_late=True, **changes)
    path = serve("cut", resume=True, **changes)
    spent = Counter()
    for row in rows(path / "ledger.csv"):
        spent[row["node"]] += int(row["message_bytes"])
    assert 40_000 < max(spent.values()) <= 60_000
    assert "leaves too few" in json.loads((path / "summary.json").read_text())["ended_early"]


def test_what_cannot_be_resumed_is_one_sentence(serve, tmp_path):
    with pytest.raises(InputError, match=r"there is no .*checkpoint\.safetensors"):
        serve("absent", resume=True)
    with pytest.raises(CutError):
        serve("cut", cut_in=2)
    with pytest.raises(InputError, match="batch-size = 16, but the run began with 8"):
        serve("cut", resume=True, batch_size=16)
    with pytest.raises(InputError, match="what its nodes have not sent yet is lost"):
        serve("cut", resume=True, strategy="topk")
    checkpoint = tmp_path / "results" / "cut" / CHECKPOINT_FILE
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="is cut short or no checkpoint"):
        serve("cut", resume=True)
    checkpoint.write_bytes(whole)
    serve("cut", resume=True)
    with pytest.raises(InputError, match="It has come to its end"):
        serve("cut", resume=True)


@pytest.fixture
def small_disk(tmp_path):
    """A folder that holds 8 MB, as root may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine mounts no tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place):
    """Leave a few bytes free; returns the file that takes the others."""
    with (place / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(100_000))
    with (place / "filler").open("r+b") as file:
        file.truncate(file.seek(0, 2) // 4096 * 4096 - 4096)
    return place / "filler"


def test_a_full_disk_of_the_server_ends_the_run_with_a_sentence_and_it_is_resumed(
    serve, small_disk
):
    class FillingGrid(CutGrid):
        def push_messages(self, messages):
            messages = list(messages)
            if messages[0].metadata.group_id == "3":
                fill(small_disk)
            return super().push_messages(messages)

    whole = serve("whole")
    changes = {"results_dir": str(small_disk)}
    with pytest.raises(OSError, match="No space left"):
        serve("cut", grid_class=FillingGrid, **changes)
    (small_disk / "filler").unlink()
    resumed = serve("cut", resume=True, **changes)
    assert (whole / MODEL).read_bytes() == (resumed / MODEL).read_bytes()
    assert not list(resumed.glob(".*"))


def test_a_node_whose_disk_is_full_says_so_and_leaves_nothing_half_written(
    federate, small_disk, caplog
):
    filler = fill(small_disk)
    with pytest.raises(InputError, match="only 0 nodes could prepare"):
        federate(cache_dir=str(small_disk)).prepare()
    assert "cannot go on" in caplog.text
    assert "Is its disk full?" in caplog.text
    assert not [p for p in small_disk.iterdir() if p.suffix in (".part", ".arrow") or p.is_dir()]
    filler.unlink()
    assert len(federate(cache_dir=str(small_disk)).prepare().prepared) == len(NODES)


def test_a_table_is_reopened_without_its_cut_line_and_the_rows_that_are_not_kept(tmp_path):
    path = tmp_path / "table.csv"
    table = GrowingTable(path, ["round", "text"])
    seals = []
    for number in range(4):
        table.add({"round": number, "text": 'a, "b"'})
        seals.append(table.seal)
    table.close()
    path.write_bytes(path.read_bytes() + b"4,c")
    columns = ["round", "text"]
    table, kept = GrowingTable.reopen(
        path, path.read_bytes(), columns, seals[1], lambda row: int(row["round"]) < 3
    )
    assert table.seal.fits(path.read_bytes(), to_the_end=True)
    table.add({"round": 9, "text": "new"})
    table.close()
    assert [row["round"] for row in kept] == ["0", "1", "2"]
    assert [(r["round"], r["text"]) for r in rows(path)] == [
        *((str(n), 'a, "b"') for n in range(3)),
        ("9", "new"),
    ]


def test_what_cuts_have_left_is_swept_away_but_not_what_is_being_built(tmp_path):
    stale, fresh = temporary_path(tmp_path / "a"), temporary_path(tmp_path / "b")
    for part in (stale, fresh):
        part.mkdir()
        (part / "embeddings.npy").write_bytes(b"half")
    old = time.time() - STALE_S - 60
    for path in (stale / "embeddings.npy", stale):
        os.utime(path, (old, old))
    (tmp_path / "kept").write_text("")
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([fresh.name, "kept"])


def keep_writing(folder: Path, first: int, config: RunConfig) -> Iterator[None]:
    """All that a run and a node write, over and over, each time of another content and length;
    yields after each file or folder.
    """
    for number in itertools.count(first):
        n = 1 + number % 7
        values = np.full((1000 * n, 4), number, dtype=np.float32)
        labels = np.full(1000 * n, number, dtype=np.int64)
        entry = Embeddings(values, labels, Counts(1000 * n, 0, 0, 0, 0))
        store(folder / f"entry{number % 3}", entry)
        yield
        images = np.full((50 * n, 16, 16, 3), number % 256, dtype=np.uint8)
        layout = PackLayout((2, 2), 8, 4, "raw", 50 * n, (0, 1, 2, 3))
        rows = images, np.arange(4), np.full(50 * n, number), np.full(50 * n, 1)
        list(write_packed(folder / "packed.arrow", layout, [rows]))
        yield
        state = State({"a": values}, {"number": number})
        write_checkpoint(folder, Checkpoint(number, {"w": values}, state))
        yield
        write_atomic(folder / "summary.json", json.dumps([number] * 1000 * n).encode())
        yield
        run = folder / "run"
        (run / CHECKPOINT_FILE).unlink(missing_ok=True)  # or the rest would be what it tells of
        shutil.rmtree(run, ignore_errors=True)
        made = RunFolder(folder, "run")
        ledger = Ledger(run / "ledger.csv")
        made.write_config(config, 2)
        for server_round in range(5):
            ledger.add(Transfer(server_round, "north", "up", "train", 1, 2, 3, 4, 5))
            made.add_round(Round(server_round, 0.5, 1.0, 1, 2, 3.0, 4, 5, 6, 7, 8))
            made.write_summary({"round": server_round})
            seals = made.seal(ledger.seal)
            write_checkpoint(run, Checkpoint(server_round, {}, State(), seals))
            yield


def require_whole(folder: Path) -> None:
    """Whatever is there can be read, and is of one piece."""
    for path in folder.glob("entry*"):
        found = load_cached(path)
        if found is None:  # an entry that was being replaced: it is computed again
            continue
        assert (found.values == found.labels[0]).all()
        assert (found.labels == found.labels[0]).all()
    if (folder / "packed.arrow").exists():
        packed = PackedImages(folder / "packed.arrow")
        (batch,) = packed.batches()
        assert (batch.patches == batch.labels[0] % 256).all()
        assert packed.n_images == packed.layout.n_source
    if (folder / CHECKPOINT_FILE).exists():
        checkpoint = read_checkpoint(folder)
        assert checkpoint.state.values["number"] == checkpoint.round
        assert (checkpoint.params["w"] == checkpoint.round).all()
    if (folder / "summary.json").exists():
        assert len(set(json.loads((folder / "summary.json").read_text()))) == 1
    run = folder / "run"
    if (run / CHECKPOINT_FILE).exists():
        read_run(run)
        resumed = read_resumable(run)
        checkpoint, tables = resumed.checkpoint, resumed.tables
        reopened = RunFolder.reopen(run, checkpoint.seals, tables)
        seal = checkpoint.seals.files["ledger.csv"]
        ledger = Ledger.reopen(run / "ledger.csv", tables["ledger.csv"], seal)
        assert [row.round for row in reopened.rounds] == list(range(checkpoint.round + 1))
        n_sent = sum(ledger.message_bytes.values()) // 2
        assert checkpoint.round + 1 <= n_sent <= checkpoint.round + 2
        read_run(run)


def test_nothing_half_written_is_ever_read_after_a_kill_at_any_point(tmp_path, make_config):
    draw = random.Random(0)
    for number in range(100):
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                for _ in keep_writing(tmp_path, number, make_config()):
                    os.write(theirs, b".")
            os._exit(1)
        os.close(theirs)
        for _ in range(draw.randrange(9)):
            os.read(ours, 1)
        time.sleep(draw.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(ours)
        assert os.WIFSIGNALED(status)  # it was writing to the end
        require_whole(tmp_path)
    assert any(load_cached(path) for path in tmp_path.glob("entry*"))
    assert (tmp_path / CHECKPOINT_FILE).exists()
