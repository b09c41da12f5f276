"""What nodes' statistics give the classifier: solved by the server, sent to each node once."""

from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.common import log
from flwr.serverapp import Grid

from fed_ist.classifier.layout import Params
from fed_ist.config.derive import count_features, fixed_codec
from fed_ist.config.run_config import RunConfig
from fed_ist.rng import generator
from fed_ist.runs.checkpoint import State, prefixed
from fed_ist.statistics.anchors import (
    WEIGHT,
    judge_anchor,
    judge_inputs,
    judge_means,
    random_inputs,
    solve_anchor,
    solve_inputs,
    solve_means,
    start_silent,
    with_projection,
)
from fed_ist.statistics.class_means import ClassSums, count_means, scatter_of_means
from fed_ist.statistics.ridge import Gram, GramSum, add
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import decode, encode, shapes_of
from strategies.core.gathering import Gathering
from strategies.core.roster import Roster

# Of a saved state: prefixes of arrays, and keys of values
FIXED, DECODED, GRAMS, SUMS = "fixed-data/", "fixed/", "gram/", "sums/"
VERSIONS, COUNTED, NOISE, JUDGED = "versions", "counted", "noise", "judged"
N_MEANS = "n-means"
HEADS = ("means", "ridge")  # values of `anchor` that give the classifier a head


@dataclass
class Foundation:
    """The parts of the classifier that come from statistics, which slices are trained beside.

    These are the inputs (what turns embeddings into inputs of the classifier) and the anchor (a
    linear head whose logits are added to the slice's).

    decorrelated: whether embeddings come from an encoder that decorrelates them itself: then an
    anchor needs no inputs. fixed: their parameters as nodes get them, float32 arrays named as in
    `fed_ist.statistics.anchors`. fixed_data: the same encoded, by their part of the
    protocol.
    """

    config: RunConfig
    roster: Roster
    gathering: Gathering
    decorrelated: bool = False
    fixed: Params = field(default_factory=dict)
    fixed_data: dict[str, bytes] = field(default_factory=dict)
    _versions: dict[str, int] = field(default_factory=dict)
    _sums: dict[str, Gram] = field(default_factory=dict)
    _counted: dict[str, set[str]] = field(default_factory=dict)
    _n_means: int = 0  # of which the sums of class means are
    _inputs_judged: bool = False

    @property
    def used(self) -> str:
        """What of `anchor` its statistics were good enough for."""
        return ", ".join(part for part in protocol.PARTS if part in self.fixed_data) or "none"

    def begin(self, params: Params, grid: Grid) -> Params:
        """What a run starts from: the drawn classifier with what the nodes' statistics give.

        params: float32 arrays, named as in `fed_ist.classifier.layout`.
        """
        self.renew(grid, 0)
        return self.whole(start_silent(params) if WEIGHT in self.fixed else params)

    def whole(self, params: Params) -> Params:
        """The classifier as it is evaluated: its float32 arrays and those that statistics gave."""
        embed_dim = self.roster.embed_dim
        fixed = with_projection(self.fixed, embed_dim, self._n_features, self.config.seed)
        drawn = random_inputs(embed_dim, self.config.random_features, self.config.seed)
        return params | fixed | drawn

    # --- on the server -----------------------------------------------------------------------

    def renew(self, grid: Grid, server_round: int) -> None:
        """Solve the inputs, once, and the anchor, again with each node whose statistics are new,
        unless these say themselves that a run is better off without.

        Another rotation of the inputs would leave the weights that learnt from them without sense.
        """
        config, first = self.config, not self._inputs_judged
        needs_inputs = config.anchor == "inputs" or not self.decorrelated
        has_inputs = config.anchor in ("inputs", "ridge") and needs_inputs
        wanted = [protocol.GRAM] if first and has_inputs else []
        if config.anchor in HEADS and self._seen not in wanted:
            wanted.append(self._seen)
        came = [kind for kind in wanted if self._add_statistics(grid, server_round, kind)]
        if first and has_inputs and protocol.GRAM in came:
            self._inputs_judged = True
            if self.is_good(protocol.INPUTS, judge_inputs(self._sums[protocol.GRAM])):
                self._fix(protocol.INPUTS, solve_inputs(self._sums[protocol.GRAM]))
        if config.anchor not in HEADS or self._seen not in came:
            return
        sums = self._sums[self._seen]
        judge = judge_means if config.anchor == "means" else judge_anchor
        if not self.is_good(protocol.ANCHOR, judge(sums)):
            return
        if config.anchor == "means":
            self._fix(protocol.ANCHOR, solve_means(sums, self._n_means, config.anchor_scale))
        else:
            self._fix(protocol.ANCHOR, solve_anchor(sums, config.anchor_scale))

    def is_good(self, part: str, reason: str) -> bool:
        """Whether a part is to be used; one that slices have learnt beside stays.

        reason: why a run is better off without it; empty for no such reason.
        """
        if not reason or part in self.fixed_data:
            return True
        log(WARNING, "Done without %s: by cross-validation on the statistics, %s", part, reason)
        return False

    def _fix(self, part: str, solved: Params) -> None:
        self._versions[part] = version = self._versions.get(part, 0) + 1
        codec, rng = fixed_codec(self.config), generator(self.config.seed, part, version)
        self.fixed_data[part] = encode(solved, codec, rng, self.config.zstd)
        # The server evaluates what the nodes train on, codec and all.
        self.fixed = self.fixed | decode(self.fixed_data[part], codec, shapes_of(solved))

    def _add_statistics(self, grid: Grid, server_round: int, kind: str) -> bool:
        """Ask nodes that sent no sums of this kind so far, and add what comes: whether any did."""
        counted, prepared = self._counted.setdefault(kind, set()), self.roster.prepared
        nodes = self.roster.post.waiting.awake(server_round, self.roster.available(grid))
        new = [i for i in nodes if prepared[i].name not in counted]
        if not new:
            return False
        found = dict(self.gathering.collect(grid, server_round, new, kind))
        counted |= {prepared[node_id].name for node_id in found}
        came = GramSum()
        for stats in self.gathering.agreed(kind, found, self._sums.get(kind)).values():
            if isinstance(stats, ClassSums):
                self._n_means += count_means(stats)
                stats = scatter_of_means(stats)
            came.add(stats)
        if not came.n_terms:
            return False
        stats = came.total()
        self._sums[kind] = add(self._sums[kind], stats) if kind in self._sums else stats
        log(INFO, "Statistics of %d of %d nodes added", came.n_terms, len(new))
        return True

    @property
    def _seen(self) -> str:
        """The statistics that the anchor is solved from."""
        if self.config.anchor == "means":
            return protocol.CLASS_SUMS
        return protocol.RANDOM_GRAM if self._n_features else protocol.GRAM

    @property
    def _n_features(self) -> int:
        """Random features that the anchor sees; 0 for the embeddings themselves."""
        return count_features(self.config, len(self.roster.post.class_names))

    # --- on its way to the nodes -------------------------------------------------------------

    def lacks(self, node_id: int) -> list[str]:
        """The parts that a node has not got as they are now."""
        held = self.roster.prepared[node_id].held
        return [part for part, version in self._versions.items() if held[part] != version]

    def bytes_for(self, node_id: int) -> int:
        """Of the parts that a node has not got."""
        return sum(len(self.fixed_data[part]) for part in self.lacks(node_id))

    def task(self, node_id: int) -> dict[str, Any]:
        """What goes into a node's task; from then on it has all parts."""
        if not self.fixed_data:
            return {}
        sent: dict[str, Any] = {part: self.fixed_data[part] for part in self.lacks(node_id)}
        self.roster.prepared[node_id].held |= self._versions
        versions = [self._versions.get(part, 0) for part in protocol.PARTS]
        return sent | {protocol.VERSIONS: versions}

    # --- between rounds ----------------------------------------------------------------------

    def save(self) -> State:
        """The parts, and the sums that they were solved from."""
        arrays = {
            f"{FIXED}{part}": np.frombuffer(data, np.uint8)
            for part, data in self.fixed_data.items()
        } | prefixed(DECODED, self.fixed)
        for kind, sums in self._sums.items():
            arrays |= {f"{GRAMS}{kind}": sums.gram, f"{SUMS}{kind}": sums.sums}
        values = {
            VERSIONS: dict(self._versions),
            COUNTED: {kind: sorted(names) for kind, names in self._counted.items()},
            JUDGED: self._inputs_judged,
            N_MEANS: self._n_means,
            NOISE: {kind: sums.noise for kind, sums in self._sums.items()},
        }
        return State(arrays, values)

    def restore(self, state: State) -> None:
        """Go on from what `save` gave."""
        self.fixed_data = {part: data.tobytes() for part, data in state.under(FIXED).items()}
        self.fixed = state.under(DECODED)
        sums, noise = state.under(SUMS), state.values[NOISE]
        self._sums = {
            kind: Gram(gram, sums[kind], noise[kind]) for kind, gram in state.under(GRAMS).items()
        }
        self._versions = dict(state.values[VERSIONS])
        self._inputs_judged = state.values[JUDGED]
        self._n_means = state.values.get(N_MEANS, 0)
        self._counted = {kind: set(names) for kind, names in state.values[COUNTED].items()}
