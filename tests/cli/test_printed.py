"""What comes from outside is shown on a terminal and never obeyed by it, whatever the command."""

import json
import logging
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from programs import fed_ist
from run_folders import make_run

import strategies
from clients import mods
from fed_ist.files.sealed_tensors import load_sealed, save_sealed
from fed_ist.printable import class_name, guard_log, indented, printable, shown
from fed_ist.traffic.links import PROFILES

# A title, a cleared screen, a C1 control, orders of text, nothing to see, returns and a new line.
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u2066\u200b\ufeff\x7f\r\u2028\nfed-ist: all is well"
KEY = "evil" + EVIL
FIGURES = ("accuracy", "best_accuracy", "bytes_down", "bytes_up")
FIGURES += ("payload_bytes_down", "payload_bytes_up")


def obeyed(text: str) -> set[str]:
    """Characters of an output that a terminal would obey."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs")} - {
        "\n",
        "\t",
    }


def require_shown(done: subprocess.CompletedProcess) -> None:
    said = done.stdout + done.stderr
    assert not obeyed(said), said
    assert not any(line.startswith("fed-ist: all is well") for line in said.split("\n")), said
    assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images") / f"root{EVIL}"
    for c, name in enumerate(("a", "b")):
        folder = root / f"{name}{EVIL}"
        folder.mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (16, 16), (c * 90, i, 0)).save(folder / f"{i}{EVIL}.png")
        (folder / f"bad{EVIL}.png").write_bytes(b"no image")
    (root / f"note{EVIL}.txt{EVIL}").write_text("x")
    (root / f"c{EVIL}").mkdir()
    return root


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    """A table with such labels, names of columns and of classes."""
    path = tmp_path_factory.mktemp("rows") / f"rows{EVIL}.parquet"
    pngs = []
    for i in range(6):
        place = path.with_name(f"{i}.png")
        Image.new("RGB", (16, 16), (i * 30, 0, 0)).save(place)
        pngs.append({"bytes": place.read_bytes(), "path": None})
        place.unlink()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    labels = [f"{c}{EVIL}" for c in "ababab"]
    columns = {f"image{EVIL}": pa.array(pngs, kind), "label": labels, f"class{EVIL}": labels}
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def run(tmp_path, make_config) -> Path:
    """A run whose files, and whose name, say such things wherever they hold text."""
    path = make_run(tmp_path, "run", make_config(num_rounds=2), with_summary=True)
    summary = json.loads((path / "summary.json").read_text())
    summary |= {"hidden_dim": 64, "hidden_layers": 2, "asked": 2, "answered": 2}
    summary |= {"dataset": "x", "strategy": "ist", "mask": "fixed", "mask_ratio": 0.5}
    summary = dict.fromkeys(FIGURES, 1.0) | summary
    texts = {key: f"{value}{EVIL}" for key, value in summary.items() if isinstance(value, str)}
    (path / "summary.json").write_text(json.dumps(summary | texts | {"ended_early": EVIL}))
    ledger = (path / "ledger.csv").read_text().replace(",0,down", f',"0{EVIL}",down')
    (path / "ledger.csv").write_text(ledger)
    return path.rename(tmp_path / f"run{EVIL}")


COMMANDS = {
    "inspect": ["inspect", "IMAGES"],
    "inspect, a table": ["inspect", "ROWS"],
    "inspect, as JSON": ["inspect", "ROWS", "--json"],
    "inspect, no such column": ["inspect", "ROWS", "--image-column", KEY],
    "pack": ["pack", "IMAGES", "--out", "OUT"],
    "pack, a table": ["pack", "ROWS", "--out", "OUT"],
    "pack, nothing there": ["pack", f"/absent{EVIL}", "--out", "OUT"],
    "doctor": ["doctor", "--data-path", "IMAGES"],
    "table": ["table", "RUN"],
    "table, no run": ["table", KEY],
    "watch": ["watch", "RUN", "--wait-s", "0"],
    "watch, no run": ["watch", KEY, "--wait-s", "0"],
    "report": ["report", "RUN", "--out", "OUT"],
    "plan": ["plan", "RUN", "--accuracy", "0.5", "--out", "OUT"],
    "links": ["links", "RUN"],
    "links, a file": ["links", "RUN", "--link-file", "LINKS", "--link", KEY],
    "predict, no model": ["predict", "RUN", "IMAGES"],
    "run, a setting": ["run", "--set", f"{KEY}={EVIL}"],
    "run, a value": ["run", "--set", f"mask={EVIL}"],
    "run, a preset": ["run", "--preset", KEY],
    "run, a preset file": ["run", "--preset", "PRESET"],
    "run, a name": ["run", "--name", KEY, "--set", "dataset=IMAGES"],
    "no command": [KEY],
    "no option": ["table", f"--{KEY}"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_prints_what_a_terminal_obeys(name, images, rows, run, tmp_path):
    links = tmp_path / "links.toml"
    text = PROFILES.read_text()
    first = text.index("[")
    quoted = json.dumps(KEY)
    links.write_text(text[:first] + "[" + quoted + text[text.index("]", first) :])
    preset = tmp_path / "preset.toml"
    preset.write_text(f"{quoted} = {quoted}\n")
    places = {
        "IMAGES": images, "ROWS": rows, "RUN": run, "OUT": tmp_path / f"out{EVIL}",
        "LINKS": links, "PRESET": preset,
    }  # fmt: skip
    words = [
        str(places.get(word, word)).replace("=IMAGES", f"={images}") for word in COMMANDS[name]
    ]
    done = fed_ist(*words, XDG_CACHE_HOME=str(tmp_path / "cache"))
    require_shown(done)
    assert done.stdout + done.stderr


def test_a_run_of_such_classes_and_its_model_print_nothing_that_is_obeyed(images, tmp_path):
    words = ["--engine", "inline", "--set", f"dataset={images}", "--set", "num-rounds=1"]
    words += ["--set", f"results-dir={tmp_path}", "--set", f"cache-dir={tmp_path / 'cache'}"]
    done = fed_ist("run", "--nodes", "2", "--name", "mine", *words)
    require_shown(done)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "mine" / "model.safetensors"
    params, extras = load_sealed(path, "model")
    extras["class_names"] = [f"a{EVIL}", f"b{EVIL}"]  # of whoever wrote the model
    path.write_bytes(save_sealed(params, extras))
    (tmp_path / "mine" / "checksums.json").unlink()
    done = fed_ist("predict", tmp_path / "mine", images)
    require_shown(done)
    assert [line.count("\t") for line in done.stdout.splitlines()] == [2] * 8
    done = fed_ist("watch", tmp_path / "mine")
    require_shown(done)


def test_lines_of_flower_are_passed_on_without_what_is_obeyed(tmp_path):
    flwr = tmp_path / "flwr"
    said = f"\x1b[92mINFO\x1b[0m: node {EVIL}"
    flwr.write_text(
        f"#!{sys.executable}\nimport sys\nprint({said!r})\nprint({said!r}, file=sys.stderr)\n"
    )
    flwr.chmod(0o755)
    code = (
        "import os; from fed_ist.printable import guard_terminal; guard_terminal(); "
        "from fed_ist.launch.flower_run import run_and_tell; "
        "print(run_and_tell(['run'], os.environ))"
    )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    for output in (done.stdout, done.stderr):
        assert output.startswith("INFO: node \\x1b]0;owned")
        assert not obeyed(output)


PLACES = {"ours": strategies.__file__, "in a room": mods.__file__, "another's": pytest.__file__}


@pytest.mark.parametrize("place", PLACES)
def test_our_records_of_a_log_are_one_line_each(place, caplog):
    guard_log("test-printed")
    guard_log("test-printed")
    log = logging.getLogger("test-printed")
    args = (f"north{EVIL}", ValueError(EVIL), np.int64(3), 2.5)
    form = "Node %s: %s %d %.1f"
    log.handle(log.makeRecord(log.name, logging.INFO, PLACES[place], 1, form, args, None))
    text = caplog.records[-1].getMessage()
    assert text.endswith("3 2.5")
    assert bool(obeyed(text) or "\n" in text) is (place == "another's")


@given(st.text())
def test_any_text_is_shown_and_its_lines_stay_lines(text):
    assert not obeyed(shown(text).strip("\r"))
    assert not obeyed(printable(text))
    assert printable(printable(text)) == printable(text)
    assert "\n" not in printable(text)
    assert class_name(class_name(text)) == class_name(text)
    assert all(line.startswith("    ") for line in indented(text).split("\n")[1:])


def test_what_scripts_need_to_be_read_stays():
    persian, hindi, emoji = "می\u200cخواهم", "क्\u200dष", "👩\u200d🌾"  # noqa: RUF001
    for text in (persian, hindi, emoji, "Ünïcode é", "日本", "a b"):
        assert printable(text) == shown(text) == text
    assert printable("ad\u200cmin") == "ad\\u200cmin"
    assert shown("\r 50%|###  |") == "\r 50%|###  |"
    assert shown("a\rb\tc\n") == "a\\rb\tc\n"
