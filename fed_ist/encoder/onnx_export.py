"""The encoder as an ONNX file, in float32 or with 8-bit weights, for ONNX Runtime.

Inputs: `patches` uint8 (n, k, patch_px * patch_px * channels), pixels channels last, and `visible`
int64 (n, k); output: `embeddings` float32 (n, embed_dim). n and k can be any numbers. The file's
metadata says how images become patches.
"""

import json
import logging
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fed_ist.errors import InputError
from fed_ist.files.atomic import clear
from fed_ist.files.cache import keep, recall, tell_damaged
from fed_ist.files.seals import seal_file

METADATA = "fed-ist"


def require_onnx() -> None:
    """Raise `InputError` unless the packages that export and run ONNX files are installed."""
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise InputError(
            f"precision = 'int8' and ONNX export need {error.name}, which is not installed. "
            "Install it with: pip install 'fed-ist[onnx]'"
        ) from None
    del onnx, onnxruntime, onnxscript


def export_onnx(
    module: nn.Module, patch_bytes: int, path: Path, int8: bool, facts: Mapping[str, object]
) -> None:
    """Export an encoder as an ONNX file at `path`, whole or not at all.

    module: takes (patches, visible) as described in `fed_ist.encoder.masked_vit`.
    patch_bytes: of a raw patch.
    int8: whether to quantise the weights of the matrix products by output channel; activations are
        then quantised while it runs (dynamic quantisation). One bit is left free, since processors
        without 8-bit dot products would overflow in their 16-bit sums. The first product takes raw
        bytes, whose sums cancel, and stays in float32.
    facts: values for the file's metadata.
    Raises `InputError` where torch cannot export it.
    """
    import onnx

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        plain, small = Path(folder, "plain.onnx"), Path(folder, "int8.onnx")
        _trace(module, patch_bytes, plain)
        if int8:
            _quantise(plain, small)
        model = onnx.load(str(small if int8 else plain))
        entry = model.metadata_props.add()
        entry.key, entry.value = METADATA, json.dumps(dict(facts), sort_keys=True)
        done = Path(folder, "done.onnx")
        onnx.save(model, str(done))
        done.replace(path)


def _trace(module: nn.Module, patch_bytes: int, path: Path) -> None:
    # Sizes that differ from each other and from 0 and 1, which the tracer takes for constants.
    patches = torch.zeros(3, 2, patch_bytes, dtype=torch.uint8)
    visible = torch.tensor([[0, 1]] * 3)
    free = {0: "n", 1: "k"}
    chatty = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript")
    levels = [logger.level for logger in chatty]
    try:
        for logger in chatty:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own deprecations
            torch.onnx.export(
                module.eval(),
                (patches, visible),
                str(path),
                input_names=["patches", "visible"],
                output_names=["embeddings"],
                dynamic_shapes={"patches": free, "visible": free},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise InputError(
            f"This encoder cannot be exported to ONNX by torch {torch.__version__} "
            f"({type(error).__name__}: {str(error).splitlines()[0][:200]})."
        ) from error
    finally:
        for logger, level in zip(chatty, levels, strict=True):
            logger.setLevel(level)


def _quantise(plain: Path, small: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    products = ("MatMul", "Gemm")
    nodes = onnx.load(str(plain)).graph.node
    first = next(node.name for node in nodes if node.op_type in products)
    # Its warning advises a pre-processing that a graph without convolutions does not need.
    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(
            str(plain),
            str(small),
            op_types_to_quantize=list(products),
            nodes_to_exclude=[first],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)


def open_session(path: Path) -> Any:
    """An ONNX Runtime session of a file, which computes in the thread that calls it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def cached_int8(
    folder: Path, digest: str, module: nn.Module, patch_bytes: int, facts: Mapping[str, object]
) -> Path:
    """The path of the int8 file of an encoder in the cache folder.

    It is exported where there is none, and again where it is not as it was exported. digest: of the
    encoder; the other arguments are those of `export_onnx`.
    """
    path = folder / f"int8-{digest[:32]}.onnx"
    seal = path.with_suffix(".seal")
    if path.exists():
        if recall(seal) == _seal(path):
            return path
        tell_damaged(path)
        if path.is_dir():
            clear(path)  # a file is replaced by the new one, which another process may read already
    export_onnx(module, patch_bytes, path, True, facts)
    keep(seal, _seal(path))
    return path


def _seal(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return json.dumps(asdict(seal_file(file))).encode()
    except OSError:
        return b""
