"""The files of pre-training: a checkpoint after each epoch, the encoder, and its history."""

import hashlib
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from fed_ist.encoder.backbone import ORIGIN
from fed_ist.errors import InputError
from fed_ist.files.atomic import write_atomic
from fed_ist.files.sealed_tensors import PLACE, with_checksum
from fed_ist.files.seals import KEY, NOT_AS_WRITTEN, TRAILER, with_trailer, without_trailer
from fed_ist.pretraining.average import MovingAverage
from fed_ist.pretraining.stages import PretrainConfig

History = dict[str, list[float]]  # stage -> mean loss of each of its epochs


def settings(config: PretrainConfig) -> str:
    """The configuration in JSON, with a digest of each file of weights instead of its path."""
    values = asdict(config)
    if config.init:
        values["init"] = _digest(config.init)
    if config.teacher and config.teacher.weights != "pretrained":
        values["teacher"]["weights"] = _digest(config.teacher.weights)
    return json.dumps(values, sort_keys=True)


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def save_checkpoint(
    checkpoint: Path,
    vit: Any,
    average: MovingAverage,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: History,
    config: PretrainConfig,
    images: str,
) -> None:
    """Write everything that resuming needs; if it is cut, the previous checkpoint stays whole.

    images: a digest of those that are learnt from.
    """
    state = {
        "encoder": vit.state_dict(),
        "average": average.weights,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history,
        "config": settings(config),
        "images": images,
    }
    data = io.BytesIO()
    torch.save(state, data)
    write_atomic(checkpoint, with_trailer(checkpoint.name, data.getvalue()))


def load_checkpoint(checkpoint: Path, config: PretrainConfig, device: str) -> dict[str, Any] | None:
    """The state in a checkpoint; None where there is no checkpoint.

    Raises `InputError` where it cannot be read, or was written with another configuration.
    """
    if not checkpoint.exists():
        return None
    try:
        data = checkpoint.read_bytes()
        kept = without_trailer(checkpoint.name, data)
        if kept is None and TRAILER in data[-len(TRAILER) * 4 :]:
            raise ValueError(NOT_AS_WRITTEN)  # one of an earlier version ends otherwise
        whole = io.BytesIO(data if kept is None else kept)
        state: dict[str, Any] = torch.load(whole, map_location=device, weights_only=True)
        before = json.loads(state["config"])
    except Exception as error:  # torch and pickle raise many kinds
        raise InputError(
            f"'{checkpoint}' cannot be read as a checkpoint ({type(error).__name__}). "
            "Move it away to start anew, or choose another --out."
        ) from error
    now = json.loads(settings(config))
    differing = [key for key in now if before.get(key) != now[key]]
    if differing:
        words = "; ".join(
            f"{key} was {json.dumps(before.get(key))} and is {json.dumps(now[key])}"
            for key in differing
        )
        raise InputError(
            f"'{checkpoint}' was written with other settings: {words}. "
            "Repeat the former, or choose another --out."
        )
    return state


def require_same_images(state: dict[str, Any], images: str, checkpoint: Path) -> None:
    """Raise `InputError` where a checkpoint's state is of other images.

    images: the digest of those that there are now. Checkpoints of earlier versions have none.
    """
    if state.get("images", images) != images:
        raise InputError(
            f"'{checkpoint}' was written with other images. Give the former, or choose another "
            "--out."
        )


def save_encoder(
    weights: Path,
    vit: Any,
    features: dict[str, Tensor],
    history: History,
    config: PretrainConfig,
) -> Path:
    """Write the encoder alone, in fp16 and with its feature statistics, and the history of losses.

    Returns the path of the weights; the history lies in the same folder. Raises `InputError` where
    a weight is not finite in fp16.
    """
    half = {
        name: value.detach().cpu().half().contiguous() for name, value in vit.state_dict().items()
    }
    harmed = next((name for name in half if not half[name].isfinite().all()), None)
    if harmed:
        raise InputError(
            f"Training ended with '{harmed}' not finite, so there is no encoder to write. Lower "
            "the learning rate, and choose another --out."
        )
    # One entry: safetensors writes several in random order, and equal runs must give equal files.
    epochs = {name: len(losses) for name, losses in history.items()}
    values = {KEY: PLACE.decode(), "shape": asdict(config.shape), "epochs": epochs}
    if config.teacher:
        values["teacher"] = config.teacher.name
    data = save(half | features, metadata={ORIGIN: json.dumps(values)})
    write_atomic(weights, with_checksum(data))
    text = json.dumps({"config": asdict(config), "loss": history}, indent=1)
    write_atomic(weights.with_name("history.json"), text.encode())
    return weights
