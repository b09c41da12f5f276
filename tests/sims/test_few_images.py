"""A few hundred images: the presets' way from JPEG to the first accuracy, in 16 bits and in 32."""

from pathlib import Path

from conftest import ROOT
from PIL import Image

from fed_ist.config.derive import encoder_spec
from fed_ist.config.toml import read_preset
from fed_ist.datasets.scenes import SCENES, draw_scene
from fed_ist.encoder.known import open_encoder
from fed_ist.files.paths import cache_dir
from fed_ist.rng import generator
from sims.experiments.one_run import run_case
from sims.experiments.shared_embeddings import embed_shared, load_shared, open_shared

CLASSES = 6


def draw(root: Path, part: str, n_each: int) -> str:
    for name in list(SCENES)[:CLASSES]:
        folder = root / part / name
        folder.mkdir(parents=True)
        for i in range(n_each):
            pixels = draw_scene(name, generator(3, f"{part}-{name}", i))
            Image.fromarray(pixels).save(folder / f"{i:02}.jpg", quality=90)
    return str(root / part)


def test_three_hundred_images_in_six_classes_start_in_8_or_16_bits_where_they_do_in_32(
    tmp_path, make_config
):
    data = {"dataset": draw(tmp_path, "train", 50), "test_dataset": draw(tmp_path, "test", 20)}
    preset = {
        k.replace("-", "_"): v for k, v in read_preset(ROOT / "sims/configs/best.toml").items()
    }
    starts = {}
    for codec in ("fp32", "fp16", "int8"):
        config = make_config(**data, **preset | {"statistics_codec": codec, "num_rounds": 1})
        encoder = open_encoder(encoder_spec(config), cache_dir(config.cache_dir))
        shared = load_shared(embed_shared(config, encoder, open_shared(config, 0)))
        starts[codec] = run_case(config, shared, 4).accuracy[0]
    assert all(abs(start - starts["fp32"]) <= 0.02 for start in starts.values())
    assert starts["fp32"] > 0.6
