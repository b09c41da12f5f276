"""The largest slice that a node can train within a round's deadline.

In a round a slice is sent to the node, trained and sent back. All three take longer the more
neurons the slice has in each hidden layer, so the largest slice that fits is found by bisection. A
step of the optimiser takes some time however small the slice is. What is sent only once, such as an
anchor, is not counted.
"""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

from fed_ist.classifier.layout import param_shapes
from fed_ist.classifier.slices import slice_bytes
from fed_ist.traffic.codecs import encoded_bytes
from fed_ist.training.boards import Device

MESSAGE_OVERHEAD_BYTES = 600  # of a message with a slice, at most, in addition to the slice
# Copies of the slice in memory at once: as it was sent, as it is trained, and its gradient; with
# FedProx also as it started, and how far it moved; Adam has two moments and a scratch array. A
# hidden neuron takes several numbers for each example of a batch: sums, outputs, scaled outputs,
# gradients. The numbers are such that the peak memory of trainings with one to eight hidden layers
# was never above the formula's (0.61 to 1.00 of it).
SLICE_COPIES = {"adam": 8, "sgd": 5}
ACTIVATION_COPIES = {"none": 8, "layer": 12, "batch": 12}
EXAMPLE_BYTES = 20  # its label, its place in the order of a pass, and a 0 where there is no anchor


@dataclass(frozen=True)
class Workload:
    """What a round takes of a node, as functions of the neurons that its slice has in each layer.

    n_examples: of the node. n_seen: examples in a round, each counted as often as it is trained on.
    n_steps: of the optimiser, in a round.
    """

    embed_dim: int
    hidden_dim: int
    num_classes: int
    hidden_layers: int
    norm: str
    optimizer: str
    batch_size: int
    n_examples: int
    n_seen: int
    n_steps: int
    down_codec: str = "fp32"
    up_codec: str = "fp32"

    def slice_bytes(self, n_neurons: int) -> float:
        """The bytes of a slice's arrays in memory."""
        return slice_bytes(
            self.embed_dim, n_neurons, self.num_classes, 1, self.hidden_layers, self.norm
        )

    def message_bytes(self, n_neurons: int, codec: str) -> int:
        """The bytes of one message with a slice, some hundred bytes more than it takes."""
        shapes = param_shapes(self._widths(n_neurons), self.norm)
        return encoded_bytes(shapes, codec) + MESSAGE_OVERHEAD_BYTES

    def multiply_adds(self, n_neurons: int) -> float:
        """The multiply-adds of a round's training, see `layout.multiply_adds`."""
        widths = self._widths(n_neurons)
        return 3.0 * self.n_seen * sum(n_in * n_out for n_in, n_out in pairwise(widths))

    def _widths(self, n_neurons: int) -> tuple[int, ...]:
        return (self.embed_dim, *[n_neurons] * self.hidden_layers, self.num_classes)

    def memory_bytes(self, n_neurons: int) -> float:
        """The bytes of memory that training takes.

        They are for the node's embeddings, copies of the slice, and the activations and gradients
        of a batch.
        """
        slices = SLICE_COPIES[self.optimizer] * self.slice_bytes(n_neurons)
        hidden = ACTIVATION_COPIES[self.norm] * self.hidden_layers * n_neurons
        activations = 4 * self.batch_size * (hidden + 2 * (self.embed_dim + self.num_classes))
        embeddings = self.n_examples * (4 * self.embed_dim + EXAMPLE_BYTES)
        return embeddings + slices + activations


def slice_round_s(device: Device, work: Workload, n_neurons: int) -> float:
    """The seconds of a round in which a node trains a slice; 0 for what is unknown.

    The slice is sent to the node, trained and sent back.
    """
    return sum(_stages_s(device, work, n_neurons))


def _stages_s(device: Device, work: Workload, n_neurons: int) -> tuple[float, float, float]:
    """Seconds of sending a slice, training it and sending it back; 0 for what is unknown."""
    training_s = _quotient(work.multiply_adds(n_neurons), device.multiply_adds_per_s)
    return (
        _quotient(work.message_bytes(n_neurons, work.down_codec), device.down_bytes_per_s),
        training_s + work.n_steps * (device.step_s or 0),
        _quotient(work.message_bytes(n_neurons, work.up_codec), device.up_bytes_per_s),
    )


def _quotient(amount: float, per_s: float | None) -> float:
    return 0.0 if per_s is None else amount / per_s


def fits(device: Device, work: Workload, n_neurons: int, deadline_s: float) -> bool:
    """Whether a round with such a slice ends in time and fits into the node's memory."""
    if device.memory_bytes is not None and work.memory_bytes(n_neurons) > device.memory_bytes:
        return False
    return slice_round_s(device, work, n_neurons) <= deadline_s


def largest_slice(device: Device, work: Workload, deadline_s: float) -> int:
    """The most neurons that a slice may have in each hidden layer; 0 where not even one fits."""
    sizes = range(1, work.hidden_dim + 1)
    return bisect_left(sizes, True, key=lambda n: not fits(device, work, n, deadline_s))


def explain_misfit(device: Device, work: Workload, deadline_s: float) -> str:
    """A sentence on what a node would need for one neuron of each layer, without full stop."""
    down_s, training_s, up_s = _stages_s(device, work, 1)
    needs = (
        f"one neuron of each layer takes {down_s + training_s + up_s:.3g} s ({down_s:.3g} down, "
        f"{training_s:.3g} training, {up_s:.3g} up) of {deadline_s:g} s"
    )
    if device.memory_bytes is None:
        return needs
    needed_mb, has_mb = work.memory_bytes(1) / 1e6, device.memory_bytes / 1e6
    return f"{needs}, and {needed_mb:.3g} MB of memory of {has_mb:.3g} MB"
