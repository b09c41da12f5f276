"""The same seed gives the same files, whichever engine and however many threads there are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from programs import fed_ist

# Products of this width are shared out among threads; an anchor is solved on the server too.
SETTINGS = ["hidden-dim=512", "num-rounds=2", "batch-size=32", "anchor=ridge"]
# What AMD's processors compute with, and Intel's can: on it the order of most sums would depend on
# the number of threads. OpenBLAS shares out fewer products where there is AVX-512.
AVX2 = {
    "OPENBLAS_CORETYPE": "Haswell",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
}


def environment(n_threads: int) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    kernels = AVX2 if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") else {}
    return kernels | dict.fromkeys(names, str(n_threads))


def files_of_run(folder: Path, images: Path, engine: str, n_threads: int) -> dict[str, bytes]:
    """The files that have to be the same, of a run with a cache of its own."""
    places = [f"dataset={images}", f"results-dir={folder}", f"cache-dir={folder / 'cache'}"]
    settings = [word for setting in [*SETTINGS, *places] for word in ("--set", setting)]
    options = ["--engine", engine, "--nodes", 2, "--name", "run", *settings]
    done = fed_ist("run", *options, **environment(n_threads))
    assert done.returncode == 0, done.stdout + done.stderr
    names = ("rounds.csv", "model.safetensors")
    return {name: (folder / "run" / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def in_one_thread(tmp_path_factory, image_folder) -> dict[str, bytes]:
    return files_of_run(tmp_path_factory.mktemp("alone"), image_folder, "inline", 1)


@pytest.mark.parametrize("n_threads", [2, 4])
def test_a_run_writes_the_same_bytes_in_any_number_of_threads(
    in_one_thread, image_folder, tmp_path, n_threads
):
    assert files_of_run(tmp_path, image_folder, "inline", n_threads) == in_one_thread


@pytest.mark.flower
def test_flowers_engine_writes_the_same_bytes_in_several_threads(
    in_one_thread, image_folder, tmp_path
):
    assert files_of_run(tmp_path, image_folder, "flower", 2) == in_one_thread


def test_an_image_has_the_same_embedding_in_any_number_of_threads():
    code = """
import sys, numpy as np, torch
from fed_ist.encoder.frozen import create_encoder
from fed_ist.encoder.spec import EncoderSpec
encoder = create_encoder(EncoderSpec())
patches = np.random.default_rng(0).integers(0, 256, (1, 32, encoder.patch_bytes), dtype=np.uint8)
n_threads = torch.get_num_threads()
sys.stdout.buffer.write(encoder.encode(patches, np.arange(32)).tobytes())
assert torch.get_num_threads() == n_threads
"""
    one, two = (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=os.environ | environment(n_threads),
            capture_output=True, check=True,
        ).stdout
        for n_threads in (1, 2)
    )  # fmt: skip
    assert one == two != b""
