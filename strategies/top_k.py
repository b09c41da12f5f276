"""FedAvg with fewer bytes on the way up: nodes answer with the largest changes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fed_ist.classifier.layout import Params
from fed_ist.traffic.codecs import Shapes
from fed_ist.traffic.top_k import from_sparse, sparse_shapes
from fed_ist.training.workload import MESSAGE_OVERHEAD_BYTES
from strategies.core.method import Layout
from strategies.fedavg import FedAvg


@dataclass
class TopK(FedAvg):
    """The largest entries with error feedback (Stich et al. 2018), `upload-share` of all."""

    def reply_bytes(self, shapes: Shapes) -> int:
        n = sum(math.prod(shape) for shape in shapes.values())
        # An array each for values and indices, with a header, a name and parts of its own.
        return 8 * max(1, round(self.config.upload_share * n)) + 2 * MESSAGE_OVERHEAD_BYTES

    def reply_layout(self, sent: Params) -> Layout:
        return sparse_shapes(sent, self.config.upload_share)

    def trained(self, back: Mapping[str, NDArray[Any]], sent: Params) -> Params:
        update = from_sparse(dict(back), sent)
        return {name: array + update[name] for name, array in sent.items()}
