"""The precision of a frozen model: float32, or less where the processor is faster with it.

"bf16" runs the blocks in bfloat16, which is faster where the processor multiplies it in hardware
(AVX512-BF16, AMX, Armv8.6). "int8" runs the exported model in ONNX Runtime with 8-bit products,
which is faster nearly everywhere. The patch embedding, which takes raw bytes, and the pooled
embedding stay in float32, as their sums cancel.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fed_ist.encoder.masked_vit import VisibleVit
from fed_ist.encoder.onnx_export import open_session
from fed_ist.errors import InputError
from fed_ist.images.masks import Indices

# (patches uint8 (N, K, P), visible int64 (N, K) or (K,)) -> embeddings float32 (N, embed_dim)
Runner = Callable[[NDArray[np.uint8], Indices], NDArray[np.float32]]


def check_precision(module: nn.Module, precision: str, name: str) -> None:
    """Raise `InputError` where the model cannot run in this precision.

    name: what the message calls the encoder.
    """
    if precision != "fp32" and not isinstance(module, VisibleVit):
        raise InputError(
            f"precision = '{precision}' is for transformers that leave out patches; encoder "
            f"'{name}' is none. Use precision = 'fp32'."
        )


def in_torch(module: nn.Module) -> Runner:
    """A function that runs the module as it is."""

    @torch.inference_mode()
    def run(patches: NDArray[np.uint8], visible: Indices) -> NDArray[np.float32]:
        # The one copy on the way from the memory-mapped store to the model: bytes become floats.
        pixels = torch.from_numpy(patches.astype(np.float32))
        embeddings: Tensor = module(pixels, torch.from_numpy(np.ascontiguousarray(visible)))
        return embeddings.numpy()

    return run


def in_bfloat16(module: VisibleVit) -> Runner:
    """A function that runs a copy of the module with its blocks in bfloat16."""
    changed = copy.deepcopy(module)
    changed.compute_in(torch.bfloat16)
    return in_torch(changed)


def in_onnx(path: Path) -> Runner:
    """A function that runs an exported file, which takes the stored bytes as they are."""
    session = open_session(path)

    def run(patches: NDArray[np.uint8], visible: Indices) -> NDArray[np.float32]:
        index = np.ascontiguousarray(np.broadcast_to(visible, patches.shape[:2]))
        found = session.run(None, {"patches": np.ascontiguousarray(patches), "visible": index})
        embeddings: NDArray[np.float32] = found[0]
        return embeddings

    return run
