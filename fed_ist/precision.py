"""What a frozen model computes in: float32, or less where the processor is quicker at it.

Only the blocks change. The patch embedding, which takes raw bytes, and the pooled embedding stay in
float32, as their sums cancel.
"""

import copy
from typing import Any

import torch
from torch import nn

from fed_ist.errors import InputError
from fed_ist.visible import VisibleVit


def at_precision(module: nn.Module, precision: str, name: str) -> nn.Module:
    """The module itself for "fp32", or a copy that computes its blocks in "bf16" or "int8".

    int8: weights by output channel, activations by tensor as they come (dynamic quantisation), in
        every linear layer of the blocks.
    Raises `InputError` where the model or this machine's torch cannot.
    """
    if precision == "fp32":
        return module
    if not isinstance(module, VisibleVit):
        raise InputError(
            f"precision = '{precision}' is for transformers that leave out patches; encoder "
            f"'{name}' is none. Use precision = 'fp32'."
        )
    changed = copy.deepcopy(module)
    if precision == "bf16":
        changed.compute_in(torch.bfloat16)
        return changed
    changed.vit.blocks = _quantised(changed.vit.blocks, name)
    return changed


def _quantised(blocks: Any, name: str) -> Any:
    from torch.ao.quantization import quantize_dynamic
    from torch.ao.quantization.qconfig import per_channel_dynamic_qconfig

    engines = torch.backends.quantized.supported_engines
    # "x86" uses the processor's dot products of bytes; on Arm the engine is qnnpack.
    engine = next((e for e in ("x86", "onednn", "qnnpack") if e in engines), None)
    if engine is None:
        raise InputError(
            "precision = 'int8' needs a torch with quantised kernels, and this one has none. "
            "Use precision = 'fp32' or 'bf16'."
        )
    torch.backends.quantized.engine = engine
    try:
        return quantize_dynamic(  # type: ignore[no-untyped-call]
            blocks, {nn.Linear: per_channel_dynamic_qconfig}
        )
    except Exception as error:
        raise InputError(
            f"Encoder '{name}' cannot be quantised by this torch ({error}). "
            "Use precision = 'fp32' or 'bf16'."
        ) from error
