"""What a node keeps between messages of the parts of the classifier that statistics gave."""

from typing import Any

from flwr.app import ConfigRecord, Context

from clients.coding import decoded
from fed_ist.classifier.layout import Params
from fed_ist.config.derive import count_features, fixed_codec
from fed_ist.config.run_config import RunConfig
from fed_ist.errors import InputError
from fed_ist.statistics.anchors import anchor_shapes, inputs_shapes, with_projection
from fed_ist.traffic import protocol

VERSION = "version"  # of a part, in its record of `context.state`


def held_versions(context: Context) -> list[int]:
    """The version of each of `protocol.PARTS` that this node keeps, 0 for none."""
    kept = [context.state.config_records.get(part) for part in protocol.PARTS]
    return [0 if record is None else int(record[VERSION]) for record in kept]  # type: ignore[arg-type]


def fixed_parts(context: Context, task: dict[str, Any], config: RunConfig) -> Params:
    """What statistics gave the classifier: float32 arrays, empty for nothing.

    They are named as in `fed_ist.statistics.anchors`. What came in the task is kept from then on;
    the rest was kept before.

    Raises `InputError` where the slice is to be trained on what this node has not got.
    """
    embed_dim, *_, num_classes = (int(width) for width in task[protocol.WIDTHS])
    n_features = count_features(config, num_classes)
    shapes = {
        protocol.INPUTS: inputs_shapes(embed_dim),
        protocol.ANCHOR: anchor_shapes(n_features or embed_dim, num_classes),
    }
    fixed: Params = {}
    versions = task.get(protocol.VERSIONS, [])
    for part, version in zip(protocol.PARTS, versions, strict=False):
        if version == 0:
            continue
        if part in task:
            context.state[part] = ConfigRecord({part: task[part], VERSION: version})
        kept = context.state.config_records.get(part)
        if kept is None or kept[VERSION] != version:
            raise InputError(
                f"This node has not got the {part} that its slice is to be trained on."
            )
        fixed |= decoded(kept, part, fixed_codec(config), shapes[part])
    return with_projection(fixed, embed_dim, n_features, config.seed)
