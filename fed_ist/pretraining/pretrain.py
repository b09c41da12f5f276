"""Pre-training of a small ViT on unlabelled images, on a plain CPU or one GPU.

Three stages: masked autoencoding (`fed_ist.pretraining.mae`), contrast of masked views
(`fed_ist.pretraining.contrast`), and where there is a teacher, distillation
(`fed_ist.pretraining.distil`). The result is an ordinary timm `VisionTransformer` state dict, which
`fed_ist.encoder.backbone` loads.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from fed_ist.encoder.backbone import build_vit, load_weights
from fed_ist.encoder.features import Moments, features_of
from fed_ist.errors import InputError
from fed_ist.files.atomic import sweep
from fed_ist.images.source import ImageSource
from fed_ist.pretraining.average import MovingAverage
from fed_ist.pretraining.checkpoints import (
    History,
    load_checkpoint,
    require_same_images,
    save_checkpoint,
    save_encoder,
)
from fed_ist.pretraining.lessons import Lessons
from fed_ist.pretraining.loop import run_stage
from fed_ist.pretraining.mae import without_fused_attention
from fed_ist.pretraining.stages import (
    Autoencoding,
    Contrasting,
    Distilling,
    PretrainConfig,
    Stage,
    StageConfig,
    normalise,
)
from fed_ist.rng import torch_seed


def stages_of(config: PretrainConfig) -> dict[str, StageConfig]:
    """The schedule of each stage, by its name and in order."""
    found = {"mae": config.mae, "contrast": config.contrast}
    return found | {"distil": config.distil} if config.teacher else found


def create_stage(name: str, vit: Any, lessons: Lessons, config: PretrainConfig) -> Stage:
    """A stage by its name, with its model around the encoder."""
    if name == "distil":
        return Distilling(vit, lessons.views, config)
    make = Autoencoding if name == "mae" else Contrasting
    return make(vit, lessons.images, config)


def pretrain(
    sources: Sequence[ImageSource], out: Path, config: PretrainConfig, device: str
) -> Path:
    """Train all stages, from `out/checkpoint.pt` on where there is one.

    Writes a checkpoint after each epoch and, at the end, `out/encoder.safetensors` and
    `out/history.json`, each whole or not at all; what a teacher makes of the images goes to
    `out/teacher`. Returns the path of the weights. Raises `InputError` where there are fewer than
    two readable images, where the checkpoint or the teacher cannot be used, and where training
    comes to numbers that are not finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    sweep(out)
    checkpoint = out / "checkpoint.pt"
    state = load_checkpoint(checkpoint, config, device)
    schedules = stages_of(config)
    history: History = state["history"] if state else {name: [] for name in schedules}
    torch.manual_seed(torch_seed(config.seed, "pretrain-init"))
    vit = build_vit(config.shape)
    if device == "cpu":  # from here on, so that a resumed run rounds as one that was not cut
        without_fused_attention(vit)
    if config.init:
        load_weights(vit, Path(config.init))
    if state:
        tqdm.write(f"resuming from {checkpoint}: epochs done {epochs_done(history)}")
        vit.load_state_dict(state["encoder"])
    lessons = Lessons(sources, out, config, device)
    if sum(lessons.sizes) < 2:
        raise InputError(
            "There is one readable image only, and nothing to tell it from. Give more."
        )
    if state:
        require_same_images(state, lessons.digest, checkpoint)
    vit.to(device)
    average = MovingAverage(vit, config.ema)
    if state:
        average.weights = state["average"]
    for name, schedule in schedules.items():
        if len(history[name]) == schedule.epochs:
            continue
        torch.manual_seed(torch_seed(config.seed, f"pretrain-{name}"))
        stage = create_stage(name, vit, lessons, config)
        if device == "cpu":
            without_fused_attention(stage.model)
        resumed = state if state and history[name] else None
        follow = partial(average.follow, vit) if name == "distil" else lambda step: None
        for loss, optimizer in run_stage(
            name, stage, lessons.sizes, config, history[name], resumed, device, follow
        ):
            history[name].append(loss)
            save_checkpoint(
                checkpoint, vit, average, stage.model, optimizer, history, config, lessons.digest
            )
    if history.get("distil"):
        vit.load_state_dict(average.weights)
    features = feature_statistics(vit, lessons.whole, config.shape.img_px, device)
    return save_encoder(out / "encoder.safetensors", vit, features, history, config)


def check_device(device: str) -> None:
    """Raise `InputError` unless torch can compute on `device`."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"--device {device} is not possible ({reason}). Use cpu.") from None


def epochs_done(history: History) -> str:
    """The number of epochs of each stage that are done, in words."""
    return ", ".join(f"{name} {len(losses)}" for name, losses in history.items())


@torch.inference_mode()
def feature_statistics(vit: Any, images: Tensor, img_px: int, device: str) -> dict[str, Tensor]:
    """The mean and covariance of the `cls` and `avg` embeddings of whole images.

    images: uint8 (n, C, S, S). Returns the statistics as a checkpoint holds them.
    """
    from torchvision.transforms.v2 import functional as transforms

    moments = [Moments(), Moments()]  # of cls, of avg
    vit.eval()
    for batch in tqdm(torch.split(images, 256), desc="feature statistics"):
        scaled = transforms.resize(batch, [img_px, img_px], antialias=True).to(device)
        tokens = vit.forward_features(normalise(scaled.float() / 255))
        moments[0].add(tokens[:, 0].cpu())
        moments[1].add(tokens[:, 1:].mean(dim=1).cpu())
    return features_of(moments)
