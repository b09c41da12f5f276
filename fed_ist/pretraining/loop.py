"""The training loop of a stage: epochs, steps, rates, and the type it computes in."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fed_ist.errors import InputError
from fed_ist.prefetch import ahead
from fed_ist.pretraining.stages import PretrainConfig, Stage
from fed_ist.rng import torch_seed


def learning_rate_at(step: int, n_steps: int, peak: float, warmup_fraction: float) -> float:
    """The learning rate of a step: a linear warm-up, then half a cosine down to zero."""
    warmup = max(1, int(n_steps * warmup_fraction))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, n_steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def run_stage(
    name: str,
    stage: Stage,
    sizes: Sequence[int],
    config: PretrainConfig,
    losses: Sequence[float],
    resumed: dict[str, Any] | None,
    device: str,
    after_step: Callable[[int], None],
) -> Iterator[tuple[float, torch.optim.Optimizer]]:
    """Train the remaining epochs of a stage; yields (mean loss, optimiser) after each.

    sizes: the number of images of each data set. losses: of the epochs that are done. resumed: the
    state of a checkpoint within this stage; None to begin. after_step: called with each step's
    number, counted from 0, once it is done. Raises `InputError` where the loss is not finite.
    """
    schedule = stage.schedule
    model = stage.model.to(device)
    model.train()
    optimizer = torch.optim.AdamW(
        decay_groups(model, config.weight_decay),
        lr=schedule.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    if resumed:
        model.load_state_dict(resumed["model"])
        optimizer.load_state_dict(resumed["optimizer"])
    size = min(schedule.batch_size, sum(sizes))
    per_epoch = sum(sizes) // size
    n_steps = schedule.epochs * per_epoch
    done = len(losses)
    with tqdm(total=n_steps, initial=done * per_epoch, desc=name, unit="step") as bar:
        for epoch in range(done, schedule.epochs):
            total = 0.0
            batches = epoch_inputs(name, stage, sizes, config, epoch, size)
            # The next views are cut while the model works on these.
            for step, inputs in ahead(batches):
                rate = learning_rate_at(
                    step, n_steps, schedule.learning_rate, config.warmup_fraction
                )
                total += train_step(model, optimizer, inputs, rate, device)
                after_step(step)
                bar.update()
            loss = total / per_epoch
            if not math.isfinite(loss):
                raise InputError(
                    f"The loss became {loss} in epoch {epoch + 1} of '{name}'. Lower its learning "
                    "rate, and choose another --out."
                )
            bar.set_postfix(epoch=epoch + 1, loss=f"{loss:.4f}")
            yield loss, optimizer


def epoch_inputs(
    name: str, stage: Stage, sizes: Sequence[int], config: PretrainConfig, epoch: int, size: int
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """(number of the step, inputs of the stage's model) for each step of one epoch.

    sizes: as in `run_stage`. size: of a batch. Each epoch has its own stream of random numbers,
    so that a resumed run draws the same as one that was not cut.
    """
    rng = torch.Generator().manual_seed(torch_seed(config.seed, f"{name}-epoch", epoch))
    order = epoch_order(sizes, config.shares, rng)
    per_epoch = len(order) // size
    for i in range(per_epoch):
        step = epoch * per_epoch + i
        yield step, stage.inputs(order[i * size : (i + 1) * size], step, rng)


def epoch_order(sizes: Sequence[int], shares: Sequence[float], rng: torch.Generator) -> Tensor:
    """The images of an epoch in the order in which they are learnt: int64 (sum of sizes,).

    sizes: the number of images of each data set, numbered one set after another. shares: of each
    set in the epoch; empty for all images alike. In a set that fills more than its size, no image
    comes another time before all have come.
    """
    n = sum(sizes)
    if not shares:
        return torch.randperm(n, generator=rng)
    ends = [round(n * sum(shares[: i + 1]) / sum(shares)) for i in range(len(shares))]
    chosen, first = [], 0
    for size, start, end in zip(sizes, [0, *ends[:-1]], ends, strict=True):
        passes = [torch.randperm(size, generator=rng) for _ in range(-(-(end - start) // size))]
        chosen += [first + torch.cat(passes)[: end - start]] if passes else []
        first += size
    return torch.cat(chosen)[torch.randperm(n, generator=rng)]


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
    """One step of the optimiser; returns the loss."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    kind = device.split(":")[0]
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=has_fast_bfloat16(kind)):
        loss = model(*(to_device(value, device) for value in inputs))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def has_fast_bfloat16(kind: str) -> bool:
    """Whether a kind of device, "cpu" or "cuda", multiplies bfloat16 in hardware.

    Where it does not, torch emulates it: on two such cores a step took three times as long as in
    float32 (64 images a second instead of 202).
    """
    if kind != "cpu":
        return True
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def to_device(value: Any, device: str) -> Any:
    """A value with all tensors in it, also those in lists, on a device."""
    if isinstance(value, list):
        return [to_device(item, device) for item in value]
    return value.to(device) if isinstance(value, Tensor) else value
