"""The exported encoder is the encoder, for any number of images and patches."""

import json
import re
import shutil
import sys
from functools import cache

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from fed_ist.encoder.frozen import create_encoder
from fed_ist.encoder.onnx_export import cached_int8, export_onnx, open_session
from fed_ist.encoder.spec import BUNDLED_ENCODER, EncoderSpec
from fed_ist.errors import InputError
from fed_ist.images.packing import take_visible

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SPECS = {
    "bundled": EncoderSpec(),
    "both poolings, four bands": EncoderSpec(pooling="both", in_chans=4),
    "DINOv3": EncoderSpec("vit_small_patch16_dinov3.lvd1689m", "random", img_px=64),
    "SigLIP": EncoderSpec("vit_base_patch16_siglip_224.webli", "random", "map", img_px=64),
    "whole image": EncoderSpec("resnet18", "random", "avg"),
}


def run(path, patches, visible):
    index = np.broadcast_to(visible, patches.shape[:2])
    return open_session(path).run(None, {"patches": patches, "visible": np.array(index)})[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Gives an encoder and its exported file; each is exported once, which takes long."""

    @cache
    def export(name):
        encoder = create_encoder(SPECS[name])
        path = tmp_path_factory.mktemp("onnx") / "encoder.onnx"
        export_onnx(encoder.module, encoder.patch_bytes, path, False, encoder.facts)
        return encoder, path

    return export


# Exporting these two takes as long as all other tests here together.
SLOW = {"DINOv3", "SigLIP"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SPECS]
)
def test_onnx_runtime_gives_what_torch_gives_at_any_size(name, exported):
    encoder, path = exported(name)
    rng = np.random.default_rng(0)
    for n, k in ((1, 1), (3, 5), (2, 16)):
        patches = rng.integers(0, 256, (n, k, encoder.patch_bytes), dtype=np.uint8)
        visible = np.stack([np.sort(rng.permutation(16)[:k]) for _ in range(n)])
        assert np.abs(run(path, patches, visible) - encoder.encode(patches, visible)).max() < 2e-3
    assert [file.name for file in path.parent.iterdir()] == ["encoder.onnx"]


def test_the_file_says_how_images_become_patches(exported):
    _, path = exported("bundled")
    facts = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    told = json.loads(facts["fed-ist"])
    assert "normalisation is inside" in told.pop("layout")
    assert told == {
        "encoder": BUNDLED_ENCODER,
        "pooling": "cls",
        "img_px": 64,
        "patch_px": 8,
        "channels": 3,
        "grid": [8, 8],
        "interpolation": "bicubic",
        "embed_dim": 192,
    }


def test_the_readmes_program_gives_the_encoders_embedding(tmp_path, monkeypatch, images, exported):
    encoder, path = exported("bundled")
    shutil.copy(path, tmp_path)
    Image.fromarray(images[0]).save(tmp_path / "image.png")
    program = re.search(
        r"```python\n(.*?)```", (ROOT / "docs/encoders.md").read_text(), re.S
    ).group(1)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(program, names)
    visible = np.arange(0, 64, 2)
    expected = encoder.encode(take_visible(images[:1], 8, visible), visible)
    assert np.abs(names["embedding"] - expected).max() < 2e-3


def test_int8_is_a_third_of_the_size_and_exported_once(tmp_path, monkeypatch, exported):
    encoder, plain = exported("bundled")
    small = cached_int8(tmp_path, "digest", encoder.module, encoder.patch_bytes, {})
    assert small.stat().st_size < plain.stat().st_size / 3
    monkeypatch.setattr("fed_ist.encoder.onnx_export.export_onnx", lambda *_: pytest.fail("again"))
    assert cached_int8(tmp_path, "digest", encoder.module, encoder.patch_bytes, {}) == small


def test_a_missing_onnx_runtime_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'fed-ist\[onnx\]'"):
        create_encoder(EncoderSpec(precision="int8"))
