"""Encodes some images as a run would, in a process of its own, and prints what that took.

A torch that was built for another processor ends its process without a word, and memory can only be
counted by process.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from fed_ist.images.source import ImageSource

N_IMAGES = 256  # a run's batch


def try_encoder() -> dict[str, str | float]:
    """Encode blank images, and measure it.

    torch: its version. images_per_s: encoded in a second. memory_bytes: of this process without the
    pages of libraries' files, which the system can drop at any time. Where 535 MB were counted
    here, and 950 MB were resident, the process was killed under a cgroup's limit of 450 MB, and
    ended well under 600 MB.
    """
    import torch

    from fed_ist.encoder.embeddings import embed, raw_mask
    from fed_ist.encoder.frozen import create_encoder
    from fed_ist.encoder.spec import EncoderSpec

    encoder = create_encoder(EncoderSpec())
    blank = Image.new("RGB", (encoder.img_px, encoder.img_px))
    source = ImageSource(
        class_names=("none",),
        labels=np.zeros(N_IMAGES, dtype=np.int64),
        load=lambda i, min_px=None: (blank, 0),
        signature="blank",
        read=lambda i, n_bytes=-1: str(i).encode(),
        name=str,
    )
    spec = raw_mask(encoder, "fixed", 0.5)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        embeddings, _ = embed(source, spec, encoder, Path(folder), print)
        took_s = time.perf_counter() - started
        if not np.isfinite(embeddings.values).all():
            raise ArithmeticError("embeddings are not finite")
        memory = psutil.Process().memory_info()
    return {
        "torch": torch.__version__,
        "images_per_s": N_IMAGES / took_s,
        "memory_bytes": memory.rss - memory.shared,
    }


if __name__ == "__main__":
    json.dump(try_encoder(), sys.stdout)
