"""The same seed gives the same run on another processor.

The digests and numbers are those of an x86-64 machine; `sims.benchmarks.aarch64` runs these tests
on an emulated ARM. Another version of numpy may draw other numbers from the same seed: then all of
them change, on each machine alike.
"""

import hashlib

import numpy as np
import pytest

from fed_ist.classifier.dealing import partition_neurons
from fed_ist.classifier.layout import init_params
from fed_ist.datasets.scenes import SCENES, draw_scene
from fed_ist.encoder.frozen import create_encoder
from fed_ist.encoder.spec import EncoderSpec
from fed_ist.images.masks import MASKS, visible_patches
from fed_ist.images.packing import compress, take_visible
from fed_ist.rng import generator
from fed_ist.traffic.codecs import ROTATED, decode, encode, shapes_of
from fed_ist.training.local import LocalTraining, train

MASK_DIGESTS = {
    "random": "62afd98d9fce",
    "fixed": "62afd98d9fce",
    "shared": "9a35622436ce",
    "grid": "d5438d8a3714",
    "block": "5da0abc6f89d",
    "saliency": "1ef824526210",
}
DEALT = "7f120852fe8c"
CODEC_DIGESTS = {
    "fp32": "8e8c02ee7a64",
    "fp16": "4c9b8f579482",
    "bf16": "fca8d80c9dcb",
    "int8": "95fa30b611aa",
    "int4": "9c960e826505",
}
PACK_DIGESTS = {
    "raw": "70dbfb61e6d3",
    "jpeg": "8d1f52d36992",
    "webp": "9e78b60b6fdd",
}
SCENE_DIGESTS = {
    "beach": "1aa2c547e60c",
    "car-park": "3b33b92e70c2",
    "farmland": "55a338f59f42",
    "forest": "abf371122733",
    "highway": "6d8401bd11c2",
    "industrial": "199bccf767b5",
    "orchard": "dac18320469b",
    "residential": "857c7ff519c6",
    "river": "661bc97d6a56",
    "water": "550911d6d9d7",
}
ROTATED_BIASES = {
    "eden2": [-0.1103, 0.0982, 0.0554, 0.1915, 0.1656],
    "eden1": [-0.108, 0.0886, 0.0563, 0.2617, 0.1249],
}
EMBEDDINGS = {
    "vit_distil_patch8_64.aid_eurosat_cifar": [0.40338, -0.62797, 0.39137, 0.87043],
    "vit_distil_patch8_64.aid_cifar": [0.41902, -0.9984, -0.18968, 0.93654],
    "vit_mae_patch8_64.aid": [1.33086, 0.55789, 0.80374, 1.56036],
}
LOSS = 1.303816
BIAS = [-0.078356, 0.08922, 0.030866, 0.092006, 0.14767]


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def params() -> dict[str, np.ndarray]:
    return init_params(48, 32, 5, generator(0, "init"), 2, "none")


def pixels() -> np.ndarray:
    """uint8 (4, 64, 64, 3)"""
    return generator(0, "pixels").integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("mask", MASKS)
def test_masks_keep_the_same_patches(mask):
    visible = visible_patches(mask, pixels(), (8, 8), 0.5, generator(0, "mask", 3))
    found = digest(visible.astype("<i8").tobytes())
    assert mask in MASK_DIGESTS, f"a new mask: give it the digest {found} in MASK_DIGESTS"
    assert found == MASK_DIGESTS[mask]


def test_the_same_neurons_are_dealt():
    subnets = partition_neurons({"h1": 100, "h2": 64}, [0.3, 0.3, 0.2], generator(0, "deal", 7))
    units = [
        subnet.neurons[axis].astype("<i8").tobytes() for subnet in subnets for axis in ("h1", "h2")
    ]
    assert digest(*units) == DEALT


@pytest.mark.parametrize("codec", CODEC_DIGESTS)
def test_slices_are_the_same_bytes(codec):
    assert digest(encode(params(), codec, generator(0, "up", 1))) == CODEC_DIGESTS[codec]


@pytest.mark.parametrize("codec", ROTATED)
def test_rotated_slices_agree_within_rounding(codec):
    """Rotations are sums of many products, which machines round in their own ways."""
    data = encode(params(), codec, generator(0, "up", 1))
    found = decode(data, codec, shapes_of(params()))["fc3.bias"]
    assert found == pytest.approx(ROTATED_BIASES[codec], abs=1e-3)


@pytest.mark.parametrize("codec", PACK_DIGESTS)
def test_packed_images_are_the_same_bytes(codec):
    patches = take_visible(pixels(), 8, np.arange(0, 64, 2))
    assert digest(*(compress(one, 8, codec) for one in patches)) == PACK_DIGESTS[codec]


@pytest.mark.parametrize("name", SCENES)
def test_drawn_images_are_the_same(name):
    assert digest(draw_scene(name, generator(1, name, 0)).tobytes()) == SCENE_DIGESTS[name]


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embeddings_agree_within_rounding(name):
    encoder = create_encoder(EncoderSpec(name))
    visible = np.arange(0, 64, 2)

    values = encoder.encode(take_visible(pixels(), 8, visible), visible)
    assert values[:, 0] == pytest.approx(EMBEDDINGS[name], abs=1e-4)


def test_training_agrees_within_rounding():
    rng = generator(0, "examples")
    values = rng.normal(size=(40, 48)).astype(np.float32)
    labels = rng.integers(0, 5, 40)
    how = LocalTraining(3, 0, 16, "adam", 1e-2)
    trained, loss = train(params(), lambda _: (values, labels), how, 2.0, generator(0, "train"))
    assert loss == pytest.approx(LOSS, rel=1e-4)
    assert trained["fc3.bias"] == pytest.approx(BIAS, abs=1e-4)
