"""Pre-training of a small ViT on unlabelled images, on a plain CPU or one GPU.

Two stages: masked autoencoding (`fed_ist.pretraining.mae`), then contrast of masked views
(`fed_ist.pretraining.contrast`). The result is an ordinary timm `VisionTransformer` state dict,
which `fed_ist.encoder.backbone` loads. Images are decoded once and kept in memory.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from fed_ist.encoder.backbone import FEATURE_MEAN, FEATURE_STD, build_vit, load_weights
from fed_ist.errors import InputError
from fed_ist.images.source import ImageSource, squares
from fed_ist.prefetch import ahead
from fed_ist.pretraining.checkpoints import History, load_checkpoint, save_checkpoint, save_encoder
from fed_ist.pretraining.mae import without_fused_attention
from fed_ist.pretraining.stages import STAGES, PretrainConfig, Stage, normalise
from fed_ist.rng import torch_seed


def decode_all(source: ImageSource, side_px: int) -> NDArray[np.uint8]:
    """All readable images of a source: uint8 (n, side_px, side_px, C), with a progress bar.

    Raises `InputError` where there are none.
    """
    images: list[NDArray[np.uint8]] = []
    skipped: list[str] = []
    for _, pixels, _ in tqdm(
        squares(source, side_px, skipped.append), total=len(source), desc="decode"
    ):
        images.append(pixels)
    if skipped:
        tqdm.write(f"skipped {len(skipped)} unreadable images, the first: {skipped[0]}")
    if not images:
        raise InputError("None of the images could be decoded, so there is nothing to train on.")
    return np.stack(images)


def learning_rate_at(step: int, n_steps: int, peak: float, warmup_fraction: float) -> float:
    """The learning rate of a step: a linear warm-up, then half a cosine down to zero."""
    warmup = max(1, int(n_steps * warmup_fraction))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, n_steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def pretrain(source: ImageSource, out: Path, config: PretrainConfig, device: str) -> Path:
    """Train all stages, from `out/checkpoint.pt` on where there is one.

    Writes a checkpoint after each epoch and, at the end, `out/encoder.safetensors` and
    `out/history.json`, each whole or not at all. Returns the path of the weights. Raises
    `InputError` where there are fewer than two readable images, or where the checkpoint cannot be
    used.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    state = load_checkpoint(checkpoint, config, device)
    history: History = state["history"] if state else {name: [] for name in STAGES}
    torch.manual_seed(torch_seed(config.seed, "pretrain-init"))
    vit = build_vit(config.shape)
    if config.init:
        load_weights(vit, Path(config.init))
    if state:
        tqdm.write(f"resuming from {checkpoint}: epochs done {epochs_done(history)}")
        vit.load_state_dict(state["encoder"])
    pixels = decode_all(source, 2 * config.shape.img_px)
    if len(pixels) < 2:
        raise InputError("There is one readable image only; contrast needs others to set it off.")
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    vit.to(device)
    for name, make in STAGES.items():
        torch.manual_seed(torch_seed(config.seed, f"pretrain-{name}"))
        stage = make(vit, config)
        if device == "cpu":
            without_fused_attention(stage.model)
        if len(history[name]) == stage.schedule.epochs:
            continue
        resumed = state if state and history[name] else None
        for losses, optimizer in run_stage(name, stage, images, config, history, resumed, device):
            history[name].append(losses)
            save_checkpoint(checkpoint, vit, stage.model, optimizer, history, config)
    features = feature_statistics(vit, images, config.shape.img_px, device)
    return save_encoder(out / "encoder.safetensors", vit, features, history, config)


def check_device(device: str) -> None:
    """Raise `InputError` unless torch can compute on `device`."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"--device {device} is not possible ({reason}). Use cpu.") from None


def epochs_done(history: History) -> str:
    """The number of epochs of each stage that are done, in words."""
    return ", ".join(f"{name} {len(losses)}" for name, losses in history.items())


def run_stage(
    name: str,
    stage: Stage,
    images: Tensor,
    config: PretrainConfig,
    history: History,
    resumed: dict[str, Any] | None,
    device: str,
) -> Iterator[tuple[float, torch.optim.Optimizer]]:
    """Train the remaining epochs of a stage; yields (mean loss, optimiser) after each.

    images: uint8 (n, C, S, S). resumed: the state of a checkpoint within this stage; None to begin.
    """
    schedule = stage.schedule
    model = stage.model.to(device)
    model.train()
    optimizer = torch.optim.AdamW(
        decay_groups(model, config.weight_decay), lr=schedule.learning_rate, betas=(0.9, 0.95)
    )
    if resumed:
        model.load_state_dict(resumed["model"])
        optimizer.load_state_dict(resumed["optimizer"])
    size = min(schedule.batch_size, len(images))
    per_epoch = len(images) // size
    n_steps = schedule.epochs * per_epoch
    done = len(history[name])
    with tqdm(total=n_steps, initial=done * per_epoch, desc=name, unit="step") as bar:
        for epoch in range(done, schedule.epochs):
            total = 0.0
            batches = epoch_inputs(name, stage, images, config, epoch, size)
            # The next views are cut while the model works on these.
            for step, inputs in ahead(batches):
                rate = learning_rate_at(
                    step, n_steps, schedule.learning_rate, config.warmup_fraction
                )
                total += train_step(model, optimizer, inputs, rate, device)
                bar.update()
            bar.set_postfix(epoch=epoch + 1, loss=f"{total / per_epoch:.4f}")
            yield total / per_epoch, optimizer


def epoch_inputs(
    name: str, stage: Stage, images: Tensor, config: PretrainConfig, epoch: int, size: int
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """(number of the step, inputs of the stage's model) for each step of one epoch.

    images: uint8 (n, C, S, S). size: of a batch. Each epoch has its own stream of random numbers,
    so that a resumed run draws the same as one that was not cut.
    """
    rng = torch.Generator().manual_seed(torch_seed(config.seed, f"{name}-epoch", epoch))
    order = torch.randperm(len(images), generator=rng)
    per_epoch = len(images) // size
    for i in range(per_epoch):
        step = epoch * per_epoch + i
        batch = images[order[i * size : (i + 1) * size]]
        yield step, stage.inputs(batch, config.shape.img_px, step, rng)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: matrices with weight decay; biases, norms and others without."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: tuple[Any, ...],
    rate: float,
    device: str,
) -> float:
    """One step of the optimiser in bfloat16; returns the loss."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast(device.split(":")[0], dtype=torch.bfloat16):
        loss = model(*(to_device(value, device) for value in inputs))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def to_device(value: Any, device: str) -> Any:
    """A value with all tensors in it, also those in lists, on a device."""
    if isinstance(value, list):
        return [to_device(item, device) for item in value]
    return value.to(device) if isinstance(value, Tensor) else value


@torch.inference_mode()
def feature_statistics(vit: Any, images: Tensor, img_px: int, device: str) -> dict[str, Tensor]:
    """The mean and deviation of each feature of the `cls` and `avg` embeddings.

    images: uint8 (n, C, S, S). Returns `FEATURE_MEAN` and `FEATURE_STD`, each float32 (2, dim).
    """
    from torchvision.transforms.v2 import functional as transforms

    total = torch.zeros(2, 2, vit.embed_dim, dtype=torch.float64)  # (sum | squares, cls | avg, dim)
    vit.eval()
    for batch in tqdm(torch.split(images, 256), desc="feature statistics"):
        scaled = transforms.resize(batch, [img_px, img_px], antialias=True).to(device)
        tokens = vit.forward_features(normalise(scaled.float() / 255))
        pooled = torch.stack([tokens[:, 0], tokens[:, 1:].mean(dim=1)]).double().cpu()
        total += torch.stack([pooled.sum(dim=1), pooled.square().sum(dim=1)])
    average, square = total / len(images)
    deviation = (square - average.square()).clamp(min=1e-6).sqrt()
    return {FEATURE_MEAN: average.float(), FEATURE_STD: deviation.float()}
