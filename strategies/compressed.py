"""FedAvg with fewer bytes on the way up: nodes answer with the largest changes."""

import math
from dataclasses import dataclass

from flwr.app import Message

from fed_ist.capacity import MESSAGE_OVERHEAD_BYTES
from fed_ist.codecs import Shapes
from fed_ist.compression import from_sparse, sparse_shapes
from fed_ist.heads import Params
from strategies.fedavg import FedAvgStrategy
from strategies.replies import read_arrays


@dataclass
class TopKStrategy(FedAvgStrategy):
    """The largest entries with error feedback (Stich et al. 2018), `upload-share` of all."""

    def reply_bytes(self, shapes: Shapes) -> int:
        n = sum(math.prod(shape) for shape in shapes.values())
        # An array each for values and indices, with a header, a name and parts of its own.
        return 8 * max(1, round(self.config.upload_share * n)) + 3 * MESSAGE_OVERHEAD_BYTES

    def read_trained(self, reply: Message, sent: Params) -> Params:
        arrays = read_arrays(reply, sparse_shapes(sent, self.config.upload_share))
        update = from_sparse(arrays, sent)
        return {name: array + update[name] for name, array in sent.items()}
