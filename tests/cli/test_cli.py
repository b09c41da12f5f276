"""The command line: helpful, quick to refuse, and never a traceback."""

import subprocess
import sys
from importlib.metadata import version

import click
import pytest
from conftest import ROOT
from PIL import Image
from programs import fed_ist, within
from typer.main import get_command
from typer.testing import CliRunner

from fed_ist.cli.main import cli
from fed_ist.errors import InputError

BAD_RUNS = {
    "useless": (["--set", "upload-share=0.1"], "upload-share = 0.1 is of no use"),
    "mask ratio": (["--set", "mask-ratio=1"], "mask-ratio = 1.0 is not possible"),
    "hidden size": (
        ["--set", "hidden-dim=3"],
        "smaller than the number of groups (4, one per node)",
    ),
    "dataset": (["--set", "dataset=secnes"], "dataset = 'secnes' is unknown"),
    "missing path": (["--set", "dataset=/absent"], "dataset = '/absent' is unknown|does not exist"),
    "encoder": (["--set", "encoder=vit_huge"], "Unknown encoder 'vit_huge'"),
    "weights": (
        ["--set", "encoder-weights=/absent.pth"],
        "encoder-weights = '/absent.pth' (--weights) is not a file",
    ),
    "mask": (["--set", "mask=stripes"], "Unknown mask 'stripes'"),
    "strategy": (["--set", "strategy=fedsgd"], "Unknown strategy 'fedsgd'"),
    "key": (["--set", "mask-ration=0.5"], "Did you mean 'mask-ratio'?"),
    "no value": (["--set", "mask-ratio"], "give key=value"),
    "preset": (["--preset", "aid"], "Unknown preset 'aid'. Choose from: aid-mask00-w4"),
    "results": (
        ["--set", "results-dir=/proc/none"],
        "results-dir = '/proc/none' cannot be written to",
    ),
    "cache": (["--set", "cache-dir=/proc/none"], "cache-dir = '/proc/none' cannot be written to"),
    "network": (["--set", "encoder=resnet50"], "'resnet50' cannot leave out patches"),
    "nodes": (["--nodes", "2", "--set", "min-nodes=3"], "--nodes 2 is fewer than min-nodes = 3"),
    "app": (["--app", "/tmp"], "is not the fed-ist app"),
    "engine": (["--on", "mine", "--engine", "inline"], "--engine inline simulates nodes"),
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_bad_input_to_run_is_one_sentence_and_exit_code_2(case):
    words, sentence = BAD_RUNS[case]
    before = set((ROOT / "results").iterdir())
    done = fed_ist("run", *words)
    assert done.returncode == 2
    assert any(part in done.stderr for part in sentence.split("|"))
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stdout == ""
    assert set((ROOT / "results").iterdir()) == before


def test_bad_images_are_refused_before_any_work(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "words" / "a").mkdir(parents=True)
    (tmp_path / "words" / "a" / "x.txt").write_text("no image")
    for name in ("empty", "words"):
        done = fed_ist("run", "--set", f"dataset={tmp_path / name}")
        assert (done.returncode, "No images in" in done.stderr) == (2, True)


def commands_of(group: click.Group, *above: str):
    """The words of each command, those of groups too."""
    for name, command in group.commands.items():
        yield (*above, name)
        if isinstance(command, click.Group):
            yield from commands_of(command, *above, name)


def test_help_has_no_backslashes_and_says_what_each_argument_is():
    group = get_command(cli)
    assert isinstance(group, click.Group)
    words = list(commands_of(group))
    assert len(words) > 20
    told = {each: CliRunner().invoke(cli, [*each, "--help"]).output for each in words}
    assert [each for each, text in told.items() if "\\" in text] == []
    arguments = told["predict",].split("Arguments:")[1].split("Options:")[0].strip().splitlines()
    assert [line.split() for line in arguments] == [
        [*["RUN", "A", "finished", "run,", "by", "name", "or", "path.", "[required]"]],
        [*["IMAGES...", "Image", "files,", "or", "folders", "of", "them.", "[required]"]],
    ]


def test_help_teaches_each_command():
    top = fed_ist("--help")
    assert top.returncode == 0
    names = ["run", "predict", "report", "watch", "table", "compare", "sweep"]
    names += ["pack", "pretrain", "probe", "bench"]
    for command in names:
        assert command in top.stdout
        assert fed_ist(command, "--help").returncode == 0
    assert "--set mask-ratio=0.75" in fed_ist("run", "--help").stdout


def test_pack_reports_what_is_saved(image_folder, tmp_path):
    out = tmp_path / "p.arrow"
    done = fed_ist("pack", image_folder, "--out", out, "--mask-ratio", 0.75, "--codec", "webp")
    assert done.returncode == 0, done.stderr
    assert "images           48 (0 skipped)" in done.stdout
    assert "raw pixels       12.29 kB an image" in done.stdout
    assert out.exists()
    for words in (["--mask-ratio", "2"], ["--codec", "gif"], ["--mask", "x"], ["--patch-px", "7"]):
        done = fed_ist("pack", image_folder, "--out", out, *words)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert fed_ist("pack", tmp_path / "none", "--out", out).returncode == 2
    before = out.read_bytes()
    assert "exists already" in fed_ist("pack", image_folder, "--out", out).stderr
    assert out.read_bytes() == before


def test_pretrain_and_predict_refuse_bad_input(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    for words in (
        ["pretrain", tmp_path / "absent", "--out", tmp_path / "o"],
        ["pretrain", tmp_path, "--out", tmp_path / "o", "--num-heads", "5"],
        ["pretrain", tmp_path, "--out", tmp_path / "o", "--mask-ratio", "1.5"],
        ["predict", tmp_path, tmp_path / "x.png"],
        ["table", tmp_path],
        ["pack", tmp_path, "--out", "/proc/x/y"],
        ["pretrain", tmp_path, "--out", "/proc/x"],
    ):
        done = within(*words)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith("fed-ist: ")


@pytest.mark.parametrize(
    "words",
    [
        ["images", "--out", "o", "--clients", "x"],
        ["absent", "--out", "o"],
        ["scenes", "--out", "o", "--methods", "magic"],
        ["scenes", "--out", "/proc/x"],
    ],
)
def test_compare_refuses_bad_input(words, tmp_path):
    (tmp_path / "images").mkdir()
    done = fed_ist("compare", *words, "--app", ROOT, cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr


@pytest.mark.parametrize("words", [["gone"], ["--set", "dataset=gone"]])
def test_images_are_an_argument_or_a_setting(words):
    done = CliRunner().invoke(cli, ["run", *words])
    assert isinstance(done.exception, InputError)
    assert "dataset = 'gone' is unknown" in str(done.exception)


def test_two_data_sets_are_one_too_many():
    done = CliRunner().invoke(cli, ["run", "mine", "--set", "dataset=other"])
    assert isinstance(done.exception, InputError)
    assert "The images are 'mine' and, by --set, 'other'" in str(done.exception)


def test_the_version_is_that_of_the_package_however_the_command_is_called():
    told = f"fed-ist {version('fed-ist')}\n"
    module = [sys.executable, "-m", "fed_ist", "--version"]
    assert CliRunner().invoke(cli, ["--version"]).output == told
    assert subprocess.run(module, capture_output=True, text=True, check=True).stdout == told


@pytest.mark.parametrize("words", [["-h"], ["run", "-h"], ["bench", "encode", "-h"]])
def test_help_has_a_short_option_everywhere(words):
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0
    assert done.output.startswith("Usage:")


def test_a_command_with_a_typo_is_answered_with_one_suggestion():
    done = CliRunner().invoke(cli, ["runn"])
    assert done.exit_code == 2
    assert done.output.count("'run'") == 1
