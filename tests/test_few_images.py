"""A few hundred images: the presets' way from JPEG to the first accuracy, in 16 bits and in 32."""

from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

from fed_ist.config.derive import encoder_spec
from fed_ist.config.toml import read_preset
from fed_ist.curves import Curve
from fed_ist.known_encoder import open_encoder
from fed_ist.paths import cache_dir
from fed_ist.rng import generator
from fed_ist.scenes import SCENES, draw_scene
from sims.experiment import run_case
from sims.preset_table import PLAIN, PRESETS, Images, lines_of, list_methods, render
from sims.shared import embed_shared, load_shared, open_shared

CLASSES = 6


def draw(root: Path, part: str, n_each: int) -> str:
    for name in list(SCENES)[:CLASSES]:
        folder = root / part / name
        folder.mkdir(parents=True)
        for i in range(n_each):
            pixels = draw_scene(name, generator(3, f"{part}-{name}", i))
            Image.fromarray(pixels).save(folder / f"{i:02}.jpg", quality=90)
    return str(root / part)


def test_three_hundred_images_in_six_classes_start_in_16_bits_where_they_do_in_32(
    tmp_path, make_config
):
    data = {"dataset": draw(tmp_path, "train", 50), "test_dataset": draw(tmp_path, "test", 20)}
    preset = {
        k.replace("-", "_"): v
        for k, v in read_preset(ROOT / "sims/configs/fewest-bytes.toml").items()
    }
    starts = {}
    for codec in ("fp32", "fp16"):
        config = make_config(**data, **preset | {"statistics_codec": codec, "num_rounds": 1})
        encoder = open_encoder(encoder_spec(config), cache_dir(config.cache_dir))
        shared = load_shared(embed_shared(config, encoder, open_shared(config, 0)))
        starts[codec] = run_case(config, shared, 4).accuracy[0]
    assert abs(starts["fp16"] - starts["fp32"]) <= 0.02
    assert starts["fp32"] > 0.6


def curves(ends):
    """Of one setting: method -> final accuracy of two seeds."""
    return [
        Curve("few, 9", "iid", 2, method, seed, (10,), (end,), 1.0, 1.0)
        for method, end in ends.items()
        for seed in range(2)
    ]


@pytest.mark.parametrize(("end", "behind"), [(0.891, False), (0.889, True), (0.95, False)])
def test_a_preset_is_behind_if_it_is_a_point_and_a_standard_error_below(end, behind):
    """Of 0.9 on 1,500 images the standard error is 0.0077."""
    images = Images("few", 9, 9)
    (found,) = lines_of(images, curves({PLAIN: 0.9, PRESETS[0]: 0.95, PRESETS[1]: end}), 1500)
    assert found[1] == behind
    assert f"{100 * (end - 0.9):+.1f}" in found[0] or end > 0.9


def test_few_test_images_have_a_larger_error_to_allow_for():
    images = Images("few", 9, 9)
    ends = curves({PLAIN: 0.9, PRESETS[0]: 0.95, PRESETS[1]: 0.88})
    assert [next(lines_of(images, ends, n))[1] for n in (100, 10_000)] == [False, True]
    assert "In 1 of 1 settings a preset ends" in render([(images, ends, 10_000)])


def test_the_table_is_about_the_presets_as_they_are():
    methods = list_methods()
    for name in PRESETS:
        assert methods[name] == read_preset(ROOT / f"sims/configs/{name}.toml")
        assert {key: methods[name][key] for key in methods[PLAIN]} == methods[PLAIN]
    assert {"num-rounds", "hidden-dim"} < set(methods[PLAIN])
