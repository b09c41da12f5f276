"""FedAvg with fewer bytes on the way up: nodes answer with a compressed difference."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fed_ist import protocol
from fed_ist.compression import dequantise, from_sparse, quantised_shapes, sparse_shapes
from fed_ist.heads import Params
from strategies.fedavg import FedAvgStrategy
from strategies.replies import Shapes


@dataclass
class TopKStrategy(FedAvgStrategy):
    """The largest entries with error feedback (Stich et al. 2018), `upload-share` of all."""

    def task(self, share: float, capacity: float) -> dict[str, float | str | list[float]]:
        return super().task(share, capacity) | {protocol.UPLOAD: protocol.TOP_K}

    def reply_shapes(self, sent: Params) -> Shapes:
        return sparse_shapes(sent, self.config.upload_share)

    def decode(self, arrays: dict[str, NDArray[Any]], sent: Params) -> Params:
        return _added(sent, from_sparse(arrays, sent))


@dataclass
class QuantisedStrategy(FedAvgStrategy):
    """Every entry in `upload-bits` bits (FedPAQ: Reisizadeh et al. 2020)."""

    def task(self, share: float, capacity: float) -> dict[str, float | str | list[float]]:
        return super().task(share, capacity) | {protocol.UPLOAD: protocol.QUANTISED}

    def reply_shapes(self, sent: Params) -> Shapes:
        return quantised_shapes(sent, self.config.upload_bits)

    def decode(self, arrays: dict[str, NDArray[Any]], sent: Params) -> Params:
        return _added(sent, dequantise(arrays, self.config.upload_bits, sent))


def _added(sent: Params, update: Params) -> Params:
    return {name: array + update[name] for name, array in sent.items()}
