"""How fast this machine encodes masked images, and at what cost in memory and energy."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from fed_ist.benchmarks.energy import Meter, open_meter
from fed_ist.encoder.backbone import create_backbone
from fed_ist.encoder.embeddings import packing, raw_mask
from fed_ist.encoder.frozen import Encoder, create_encoder, images_in_step
from fed_ist.encoder.spec import EncoderSpec
from fed_ist.files.atomic import write_atomic
from fed_ist.images.masks import count_visible, visible_patches
from fed_ist.images.packing import PackedBatch, PackedImages, take_visible
from fed_ist.images.source import ImageSource
from fed_ist.prefetch import N_WORKERS, ahead
from fed_ist.rng import generator

RATIOS = (0.0, 0.25, 0.5, 0.75, 0.9)
ROUNDS = 3
BATCHES_IN_CALL = 2  # for each worker
PLAIN_BATCH_SIZE = 32  # of timm's forward, where others have the batch size of a run
Work = Callable[[], object]


@dataclass(frozen=True)
class Speed:
    """The speed of one case: a mask ratio, a batch size and a precision.

    precision: "timm" for timm's own forward on full images, in float32.
    images_s: images per second, the median of several rounds in which the cases take turns.
    against_timm: images_s over that of timm's forward at the same batch size.
    peak_mb: the peak memory of the process while this case ran; None where unknown.
    joules: for each image; None where the machine reports no energy.
    """

    mask_ratio: float
    batch_size: int
    precision: str
    images_s: float
    against_timm: float
    peak_mb: float | None
    joules: float | None


def encoding_speed(
    specs: Sequence[EncoderSpec], batch_sizes: Sequence[int], seconds: float
) -> Iterator[Speed]:
    """The speed from packed patches to embeddings for every batch size, mask ratio and spec.

    specs: they differ in precision. batch_sizes: 0 for the one that a run uses at that ratio.
    seconds: to spend on each case in all.
    """
    encoders = [create_encoder(spec) for spec in specs]
    meter = open_meter()
    for batch_size in batch_sizes:
        cases = [("timm", 0.0, _plain_forward(specs[0], batch_size))]
        cases += [
            (encoder.spec.precision, ratio, _encoding(encoder, ratio, batch_size))
            for encoder in encoders
            for ratio in RATIOS
        ]
        measured: list[list[Turn]] = [[] for _ in cases]
        for _ in tqdm(range(ROUNDS), desc=f"batch size {batch_size or 'as in a run'}", leave=False):
            for turns, (_, _, (_, n, once)) in zip(measured, cases, strict=True):
                turns.append(_measure(once, n, seconds / ROUNDS, meter))
        speeds = [statistics.median(turn.images_s for turn in turns) for turns in measured]
        for case, turns, speed in zip(cases, measured, speeds, strict=True):
            (precision, ratio, (size, _, _)), last = case, turns[-1]
            yield Speed(ratio, size, precision, speed, speed / speeds[0], last.peak_mb, last.joules)


def write_json(path: Path, found: Sequence[Speed]) -> None:
    """Write the figures to a file, with the machine and libraries on which they were measured."""
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    text = json.dumps({"machine": machine, "speeds": [asdict(s) for s in found]}, indent=1)
    write_atomic(path, (text + "\n").encode())


def _encoding(encoder: Encoder, ratio: float, batch_size: int) -> tuple[int, int, Work]:
    """(batch size, images, a call that encodes them as a run does)"""
    rng = generator(0, "bench")
    n_visible = count_visible(encoder.grid[0] * encoder.grid[1], ratio)
    size = batch_size or images_in_step(n_visible)
    shape = (size, encoder.img_px, encoder.img_px, encoder.spec.in_chans)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    visible = visible_patches("fixed", images, encoder.grid, ratio, rng)
    labels = np.zeros(size, dtype=np.int64)
    batch = PackedBatch(take_visible(images, encoder.patch_px, visible), visible, labels)
    batches = [batch] * (BATCHES_IN_CALL * N_WORKERS)
    return size, size * len(batches), lambda: list(encoder.encode_all(batches, size))


def _plain_forward(spec: EncoderSpec, batch_size: int) -> tuple[int, int, Work]:
    """The same for timm's forward, on full images that were normalised before."""
    backbone = create_backbone(spec.name, spec.weights, spec.in_chans, spec.img_px)
    model = backbone.model.eval()
    n = batch_size or PLAIN_BATCH_SIZE
    images = torch.randn(n, spec.in_chans, backbone.img_px, backbone.img_px)

    @torch.inference_mode()
    def once() -> object:
        return model(images)

    return n, n, once


@dataclass(frozen=True)
class Turn:
    """What one round measured of one case, see `Speed`."""

    images_s: float
    peak_mb: float | None
    joules: float | None


def _measure(once: Work, n: int, seconds: float, meter: Meter | None) -> Turn:
    """Call `once`, which encodes n images, for these seconds or once at least."""
    once()  # the first call allocates
    _reset_peak()
    before = meter.joules() if meter else 0.0
    calls, started = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - started < seconds:
        once()
        calls += 1
    elapsed = time.perf_counter() - started
    joules = (meter.joules() - before) / (calls * n) if meter else None
    return Turn(calls * n / elapsed, _peak_mb(), joules)


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:  # not Linux; then `_peak_mb` gives None too
        return


def _peak_mb() -> float | None:
    """The peak resident memory since `_reset_peak`; None where the system does not report it."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kilobytes) / 1024


@dataclass(frozen=True)
class Overlap:
    """Seconds for all images: packing alone, encoding alone, and both at once as in a run.

    Each is the median of several rounds, in which the three take turns.
    """

    n_images: int
    pack_s: float
    encode_s: float
    both_s: float

    @property
    def hidden(self) -> float:
        """The share of the shorter work that took no extra time, as it ran during the other."""
        return (self.pack_s + self.encode_s - self.both_s) / min(self.pack_s, self.encode_s)


def overlap(source: ImageSource, encoder: Encoder, mask_ratio: float, folder: Path) -> Overlap:
    """Measure how far packing and encoding the images of a source overlap.

    folder: for packed files, which are deleted afterwards.
    """
    spec = raw_mask(encoder, "fixed", mask_ratio, channels=source.channels)

    def timed(work: Work) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    def skip(reason: str) -> None:
        return None

    def encode(batches: Iterator[PackedBatch]) -> None:
        for _ in encoder.encode_all(batches):
            pass

    path = folder / "bench.arrow"

    def pack() -> None:
        for _ in packing(source, spec, path, skip):
            pass

    works: tuple[Work, ...] = (
        pack,
        lambda: encode(PackedImages(path).batches()),
        lambda: encode(ahead(packing(source, spec, path, skip))),
    )
    try:
        rounds = [[timed(work) for work in works] for _ in tqdm(range(ROUNDS), leave=False)]
        n_images = PackedImages(path).n_images
    finally:
        path.unlink(missing_ok=True)
    pack_s, encode_s, both_s = (statistics.median(times) for times in zip(*rounds, strict=True))
    return Overlap(n_images, pack_s, encode_s, both_s)
