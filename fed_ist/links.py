"""Links between a node and the server: what they carry, what that takes, and what it costs.

The profiles are data, `links.toml` beside this file, each figure with its source.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """One kind of link, as a planner may count on it.

    down_bps, up_bps: bits of IP traffic a second, towards and from the node.
    latency_s: one way. loss: share of the packets, in [0, 1).
    down_j_per_byte, up_j_per_byte: what the node's radio uses; None where nobody published it.
    quota_bytes: a month, both ways; None where it is not limited.
    sources: for each figure, where it is from.
    """

    name: str
    down_bps: float
    up_bps: float
    latency_s: float
    loss: float
    down_j_per_byte: float | None
    up_j_per_byte: float | None
    quota_bytes: float | None
    sources: dict[str, str]
