"""Encoders that the cache knows: when it may, and that nothing is found under another's name."""

import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from safetensors.torch import save_file

from fed_ist.encoder.frozen import Encoder, create_encoder
from fed_ist.encoder.known import KnownEncoder, Traits, open_encoder
from fed_ist.encoder.spec import EncoderSpec
from fed_ist.errors import InputError
from fed_ist.files.cache import keep, recall

SPECS = {
    "bundled": EncoderSpec(),
    "random": EncoderSpec(weights="random", seed=3),
    "whole image": EncoderSpec("resnet18", weights="random", pooling="avg", img_px=64),
}


@pytest.mark.parametrize("name", SPECS)
def test_what_is_known_is_what_the_encoder_says(name, tmp_path):
    spec = SPECS[name]
    first = open_encoder(spec, tmp_path)
    known = open_encoder(spec, tmp_path)
    assert isinstance(first, Encoder)
    assert isinstance(known, KnownEncoder)
    for field in fields(Traits):
        assert getattr(known, field.name) == getattr(first, field.name)
    patches = np.zeros((1, 2, first.patch_bytes), dtype=np.uint8)
    visible = np.arange(2)
    assert (known.whole.encode(patches, visible) == first.encode(patches, visible)).all()


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"pooling": "avg"}, {"in_chans": 4}, {"precision": "bf16"}]
)
def test_another_encoder_is_not_known(change, tmp_path):
    spec = EncoderSpec(weights="random")
    open_encoder(spec, tmp_path)
    assert isinstance(open_encoder(replace(spec, **change), tmp_path), Encoder)


def checkpoint(path, seed):
    state = create_encoder(EncoderSpec(weights="random", seed=seed)).module.vit.state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, path)


def test_a_checkpoint_is_known_by_what_is_in_it(tmp_path):
    path = tmp_path / "weights.safetensors"
    spec = EncoderSpec(weights=str(path))
    checkpoint(path, 0)
    before = open_encoder(spec, tmp_path)
    assert isinstance(open_encoder(spec, tmp_path), KnownEncoder)
    checkpoint(path, 1)
    after = open_encoder(spec, tmp_path)
    assert isinstance(after, Encoder)
    assert after.digest != before.digest
    path.unlink()
    with pytest.raises(InputError, match="is not a file"):
        open_encoder(spec, tmp_path)


def test_what_turns_out_to_be_another_is_said_and_put_right(tmp_path):
    spec = EncoderSpec(weights="random")
    digest = open_encoder(spec, tmp_path).digest
    (entry,) = tmp_path.glob("encoder-*")
    known = recall(entry).decode()
    keep(entry, known.replace(digest, "0" * 64).encode())
    with pytest.raises(InputError, match="run this again"):
        _ = open_encoder(spec, tmp_path).whole
    assert open_encoder(spec, tmp_path).digest == digest
    entry.write_bytes(entry.read_bytes()[:20])
    assert isinstance(open_encoder(spec, tmp_path), Encoder)


def test_a_folder_that_cannot_be_written_only_costs_the_memory(tmp_path):
    (tmp_path / "file").touch()
    assert isinstance(open_encoder(EncoderSpec(), tmp_path / "file"), Encoder)


def test_to_know_an_encoder_loads_no_torch(tmp_path):
    open_encoder(EncoderSpec(), tmp_path)
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from fed_ist.encoder.spec import EncoderSpec\n"
        "from fed_ist.encoder.known import open_encoder\n"
        f"open_encoder(EncoderSpec(), Path({str(tmp_path)!r}))\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
