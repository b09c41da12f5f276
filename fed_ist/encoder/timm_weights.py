"""Models of timm with weights from a checkpoint, or with those that timm fetches."""

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from fed_ist.encoder.build import Options, build, sketch
from fed_ist.encoder.features import take_features
from fed_ist.encoder.spec import BUNDLED_ENCODER
from fed_ist.encoder.weight_files import EncoderWeights, find_weights, require_finite
from fed_ist.encoder.weight_order import in_order
from fed_ist.errors import InputError
from fed_ist.files.hub import FetchError, asking
from fed_ist.images.decoding import RGB


def load_model(name: str, path: Path, options: Options) -> tuple[Any, dict[str, Tensor], str]:
    """(a timm model with the weights of a checkpoint, its features, a sentence for the user).

    The features are statistics of its embeddings, see `features`; the sentence may be empty.
    Weights under another project's names are matched by their order, see `weight_order`. Raises
    `InputError` where the file does not fit.
    """
    encoder = _found_for(name, path, options)
    features = take_features(encoder.weights)
    try:
        return _filled(name, path, encoder.weights, options), features, encoder.note
    except InputError:
        ordered = _ordered_for(name, encoder.weights, options)
        if ordered is None:
            raise
    note = (
        f"The weights in '{path}' have other names than those of '{name}'. They were matched by "
        "their order: all layers agree in kind and shape."
    )
    return _filled(name, path, ordered, options), features, f"{encoder.note} {note}".strip()


def _ordered_for(
    name: str, weights: dict[str, Tensor], options: Options
) -> dict[str, Tensor] | None:
    """The weights under a timm model's own names by their order; None where a layer differs.

    They may be for RGB where the model has other channels, as timm's loader adapts them.
    """
    tried = [options, options | {"in_chans": RGB}]
    matched = (in_order(weights, sketch(name, each).state_dict()) for each in tried)
    return next((found for found in matched if found is not None), None)


def _found_for(name: str, path: Path, options: Options) -> EncoderWeights:
    """The weights of a timm model in a checkpoint, without those of a classifier on top."""
    wanted = sketch(name, options).state_dict()
    whole = sketch(name, options | {"num_classes": 2})
    classifiers = whole.default_cfg.get("classifier") or ()
    if isinstance(classifiers, str):
        classifiers = (classifiers,)
    return find_weights(
        path,
        wanted,
        [*(f"{layer}." for layer in classifiers), *(set(whole.state_dict()) - set(wanted))],
    )


def _filled(name: str, path: Path, weights: dict[str, Tensor], options: Options) -> Any:
    """A timm model with the weights of a checkpoint.

    timm's own loader takes a dict of weights instead of a download, converts the layouts of other
    projects, interpolates positions and adapts the channels. It refuses weights that do not fit as
    long as the number of classes does not change. For the few families where it only logs that,
    its log is read.
    """
    overlay = {"state_dict": weights, "num_classes": 0, "label_offset": 0, "custom_load": False}
    noted = _Notes()
    logger = logging.getLogger("timm.models._builder")
    before = logger.level, logger.propagate
    logger.addHandler(noted)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        model = build(name, options | {"pretrained": True, "pretrained_cfg_overlay": overlay})
    except Exception as error:  # torch names what does not fit, timm's converters may just fail
        raise _other_architecture(name, path, str(error) or type(error).__name__) from error
    finally:
        logger.removeHandler(noted)
        logger.level, logger.propagate = before
    if noted.misfits:
        raise _other_architecture(name, path, noted.misfits[0])
    require_finite(model, path)
    return model


class _Notes(logging.Handler):
    """Keeps the messages of timm's loader on missing and unexpected weights."""

    def __init__(self) -> None:
        super().__init__()
        self.misfits: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith(("Missing keys", "Unexpected keys", "Unable to convert")):
            self.misfits.append(message)


def _other_architecture(name: str, path: Path, reason: str) -> InputError:
    shown = " ".join(reason.split())[:300]
    return InputError(
        f"Checkpoint '{path}' is of another architecture than encoder '{name}': {shown}"
    )


def fetch_model(name: str, options: Options) -> Any:
    """A timm model with its pre-trained weights.

    Raises `InputError` where they can be had neither from their server nor from the cache.
    """
    try:
        with _asking_for(name):
            return build(name, options | {"pretrained": True})
    except FetchError as error:
        raise InputError(
            f"The weights of encoder '{name}' could not be fetched ({error}). "
            "Check the network, or download them elsewhere and give encoder-weights (--weights) "
            f"the path of the file, or use the bundled encoder {BUNDLED_ENCODER}."
        ) from error


def _asking_for(name: str) -> AbstractContextManager[None]:
    """The context in which a model's weights are asked for: from the Hub, or from an old server."""
    import timm
    from torch.hub import get_dir

    source = timm.get_pretrained_cfg(name)
    url = str(source.url) if source and source.url and not source.hf_hub_id else ""
    if url and Path(get_dir(), "checkpoints", Path(url).name).is_file():
        return nullcontext()
    return asking(url)
