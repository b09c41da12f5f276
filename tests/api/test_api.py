"""What Python users call: embed, train, load_run."""

import doctest
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import fed_ist
from fed_ist.errors import InputError

TRAINED = {"mask_ratio": 0.5, "num_rounds": 2, "hidden_dim": 16, "encoder_weights": "random"}


def pixels(n: int, side: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def test_importing_the_package_loads_nothing_heavy():
    code = "import fed_ist, sys; print([m for m in ('torch', 'numpy', 'flwr') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names_are_there_and_no_others():
    assert dir(fed_ist) == sorted(fed_ist.__all__)
    assert re.fullmatch(r"\d+\.\d+.*", fed_ist.__version__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        fed_ist.nothing  # noqa: B018 -- that it raises is the point


def test_images_in_memory_have_the_embeddings_of_their_files(tmp_path):
    images = pixels(3)
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    options = {"weights": "random", "mask": "grid"}  # a fixed mask follows from the file's bytes
    found = fed_ist.embed(images, **options)
    assert found.shape == (3, 192)
    assert found.dtype == np.float32
    assert np.array_equal(found, fed_ist.embed(tmp_path, **options))
    assert np.array_equal(found, fed_ist.embed([Image.fromarray(one) for one in images], **options))


def test_grey_images_become_colour_ones():
    grey = pixels(1)[..., 0]
    colour = np.repeat(grey[..., None], 3, axis=3)
    options = {"weights": "random", "mask_ratio": 0.0}
    assert np.array_equal(fed_ist.embed(grey, **options), fed_ist.embed(colour, **options))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([], "There are no images"),
        (pixels(1).astype(np.float32), "Image 0 is float32"),
        ([pixels(1)[0], pixels(1)[0, 0, 0]], r"Image 1 is uint8 \(3,\)"),
        ("gone", "'gone' does not exist"),
    ],
)
def test_what_are_no_images_is_one_sentence(images, said):
    with pytest.raises(InputError, match=said):
        fed_ist.embed(images, weights="random")


def test_an_image_that_cannot_be_read_is_named_and_not_left_out(tmp_path):
    Image.fromarray(pixels(1)[0]).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with pytest.raises(InputError, match=r"b\.png"):
        fed_ist.embed(tmp_path, weights="random")


@pytest.fixture(scope="module")
def run(image_folder, tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    return fed_ist.train(image_folder, nodes=2, name="mine", results=results, **TRAINED)


def test_a_trained_run_can_be_looked_at_and_used(run, image_folder):
    assert list(run.rounds["round"]) == [0, 1, 2]
    assert run.rounds["accuracy"].iloc[-1] == run.accuracy
    assert set(run.ledger["direction"]) == {"down", "up"}
    assert run.summary["clients"] == 2
    found = run.predict(image_folder / "beach")
    probabilities = run.probabilities(image_folder / "beach")
    assert probabilities.shape == (12, 4)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert [run.class_names[i] for i in probabilities.argmax(axis=1)] == found.tolist()
    assert run.predict(pixels(2)).shape == (2,)


def test_a_run_is_found_by_its_path(run):
    again = fed_ist.load_run(str(run.path))
    assert again.accuracy == run.accuracy
    assert str(run.path) in repr(again)
    with pytest.raises(InputError):
        fed_ist.load_run(run.path.parent / "absent")


def test_what_a_run_refuses_is_raised_with_its_sentence(image_folder, tmp_path):
    with pytest.raises(InputError, match=r"mask-ratio = 1\.5 is not possible"):
        fed_ist.train(image_folder, results=tmp_path, mask_ratio=1.5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["fed_ist.api.embed"])
def test_examples_in_docstrings_are_true(module):
    found = doctest.testmod(sys.modules[module])
    assert found.attempted
    assert not found.failed


def test_the_program_of_the_documents_runs(image_folder, tmp_path):
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.M | re.S))
    program = program.replace('"images"', repr(str(image_folder))).replace(
        'preset="anchored"', f'preset="anchored", num_rounds=1, results={str(tmp_path)!r}'
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
