"""The table of keys: one frozen configuration of a run, each of whose values is possible.

The keys are those of Flower's run config, in kebab-case there (`mask-ratio`) and with underscores
here (`mask_ratio`). A new key is a row here and its default in `[tool.flwr.app.config]` of
`pyproject.toml`, the only place of defaults, because Flower accepts overrides only of keys that
stand there; `make docs-settings` then writes both into docs/settings.md.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_type_hints

from fed_ist.classifier.layout import NORMS
from fed_ist.config.choices import (
    BOARDS,
    RUN_NAMES,
    SHARES,
    is_run_name,
    read_capacities,
    read_devices,
)
from fed_ist.config.limits import above, at_least, between, one_of, read_by, such_that, within
from fed_ist.config.methods import SLICED, STRATEGIES, TRAINED
from fed_ist.config.rows import ROW, Row, key
from fed_ist.config.toml import Value, kebab
from fed_ist.datasets.partitions import PARTITIONERS
from fed_ist.encoder.spec import MOST_IMG_PX, POOLINGS, PRECISIONS, require_img_px
from fed_ist.images.bands import parse_bands, parse_range
from fed_ist.images.masks import MASKS
from fed_ist.images.packing import CODECS as PATCH_CODECS
from fed_ist.statistics.anchors import ANCHORS
from fed_ist.traffic.codecs import CODECS
from fed_ist.training.optimizers import OPTIMIZERS

IMAGES, PATCHES, ENCODER, CLASSIFIER = "Images and nodes", "Patches", "Encoder", "Classifier"
METHOD, STATISTICS, TRAINING, ROUNDS = "Method", "Statistics", "Training on a node", "Rounds"
MERGING, PRIVACY, TRAFFIC, RUN = "Merging", "Privacy", "Traffic", "The run and its folders"

ABSOLUTE = such_that("an absolute path, or ''", lambda path: not path or Path(path).is_absolute())
RANGE = "the values that become 0 and 255, such as 0:10000, or ''"


@dataclass(frozen=True)
class RunConfig:
    """The settings of a run: a field and a row for each key.

    Every value is possible on its own: raises `InputError` where one is not. `parse_config` also
    checks which values go together.
    """

    # fmt: off
    dataset: str = key(IMAGES, None,
        "The images: `scenes`, which are drawn, a folder, a parquet file, or a name on the Hub.")
    test_dataset: str = key(IMAGES, None, "Where the test images are, if not in `dataset`.")
    test_share: float = key(IMAGES, between(0, 1), "The share of each class that is held out, in a "
        "simulation where the data set has no test split.")
    partitioner: str = key(IMAGES, one_of(PARTITIONERS), "How simulated nodes share the images.")
    partition_alpha: float = key(IMAGES, above(0), "The smaller it is, the more the nodes differ.",
        needs=("partitioner", ("dirichlet",)))
    classes_per_node: int = key(IMAGES, at_least(1), "How many classes a simulated node has.",
        needs=("partitioner", ("pathological",)))
    partition_column: str = key(IMAGES, None,
        "The column of a table for each of whose values there is one node.",
        needs=("partitioner", ("column",)))
    bands: str = key(IMAGES, read_by(lambda text: parse_bands(text, ""),
        "names or numbers of bands with a comma between them, or ''"),
        "Bands of GeoTIFFs, such as `B04,B03,B02,B08` or `4,3,2,8`; images are RGB if empty.")
    band_range: str = key(IMAGES, read_by(lambda text: parse_range("band-range", text), RANGE),
        "The values of the bands that become 0 and 255; it may be empty for rasters of 8 bits.")
    value_range: str = key(IMAGES, read_by(lambda text: parse_range("value-range", text), RANGE),
        "The same for images of 16 bits without `bands`, which use all 16 bits if it is empty.")
    image_column: str = key(IMAGES, None,
        "The column of a table that holds the images, if several could.")
    label_column: str = key(IMAGES, None,
        "The column of a table that holds the classes, if several could.")
    mask: str = key(PATCHES, one_of(MASKS), "Which patches are kept: "
        + ", ".join(f"`{name}` ({mask.words})" for name, mask in MASKS.items()) + ".")
    mask_ratio: float = key(PATCHES, within("[0, 1)"), "The share of the patches that is dropped.")
    codec: str = key(PATCHES, one_of(PATCH_CODECS), "How the patches that are kept are stored.")
    encoder: str = key(ENCODER, None, "The bundled encoder, or any timm model by its name.")
    encoder_weights: str = key(ENCODER, None, "`pretrained`, `random`, or the path of a "
        "checkpoint, in whatever wrapper or under whatever prefix.")
    pooling: str = key(ENCODER, one_of(POOLINGS), "What the embedding is: the class token `cls`, "
        "the mean of the patches `avg`, `both`, or the model's own attention pooling `map`.")
    img_px: int = key(ENCODER, read_by(require_img_px,
        f"a multiple of the encoder's patch side, {MOST_IMG_PX} at most, or 0"),
        "The side to which images are scaled; 0: the encoder's own.")
    precision: str = key(ENCODER, one_of(PRECISIONS),
        "What the encoder computes in; `int8` is by ONNX Runtime.")
    strategy: str = key(METHOD, one_of(STRATEGIES),
        "The method: IST, or one of the others of the [table below](#methods).")
    groups: int = key(METHOD, at_least(0), "How many slices `ist` and `feddropout` cut the "
        "classifier into; 0: one for each node of the round.")
    dealing: str = key(METHOD, one_of(("random", "rotating")),
        "`random` deals all neurons anew in each round, as in the paper; `rotating` keeps the "
        "groups and has them go round among the nodes (one hidden layer).",
        needs=("strategy", ("ist",)))
    rescale: bool = key(METHOD, None,
        "Whether a slice's hidden sums are divided by its share of the neurons while it trains.")
    capacities: str = key(METHOD, read_by(read_capacities, SHARES),
        "The shares of the neurons that simulated nodes can train, taken in turn; a device has "
        "`capacity=0.25` in its `--node-config`.", needs=("strategy", SLICED))
    round_deadline_s: float = key(METHOD, at_least(0), "The seconds that a node's round may take: "
        "slices become [as small as that needs](slow-devices.md); 0: no limit.")
    devices: str = key(METHOD, read_by(read_devices, BOARDS),
        "What simulated nodes are, taken in turn; this machine if empty.")
    anchor: str = key(STATISTICS, one_of(ANCHORS), "What statistics that nodes send once give the "
        "classifier: `inputs` (decorrelated), or a linear head to whose logits it adds its own, "
        "solved from class means (`means`) or as a ridge regression (`ridge`; with decorrelated "
        "inputs, unless the encoder decorrelates its embeddings).")
    anchor_bytes: int = key(STATISTICS, within("[0, 1000000000]"), "The bytes that a node may send "
        "for random features, on which the head is then solved, in addition to the sums of its "
        "embeddings; 0: none.")
    anchor_scale: float = key(STATISTICS, above(0), "The factor of the anchor's logits.",
        needs=("anchor", ("means", "ridge")))
    statistics_noise: float = key(STATISTICS, at_least(0),
        "The deviation of the noise that each node adds to its statistics.")
    server_learning_rate: float = key(METHOD, at_least(0), "How far the server goes in a round; 0: "
        "1 for `fedavgm`, 0.01 for `fedadam`.", needs=("strategy", ("fedadam", "fedavgm")))
    server_momentum: float = key(METHOD, within("[0, 1)"), "How much of its last step the server "
        "keeps.", needs=("strategy", ("fedadam", "fedavgm")))
    upload_share: float = key(METHOD, within("(0, 1]"),
        "The share of the entries that a node sends.", needs=("strategy", ("topk",)))
    aggregation: str = key(MERGING, one_of(("mean", "trimmed-mean")), "What becomes of the values "
        "that nodes send for a weight: `trimmed-mean` leaves out the largest and the smallest and "
        "counts all nodes alike ([security](security.md)).", needs=("strategy", TRAINED))
    trim_share: float = key(MERGING, within("[0, 0.5]"),
        "The share that is left out at each end; 0.5 is the median.",
        needs=("aggregation", ("trimmed-mean",)))
    clip_norm: float = key(MERGING, at_least(0), "Each node's change is cut to this many times the "
        "median of the round's changes, and nodes count alike; 0: no limit, and a node counts by "
        "its images ([security](security.md)).", needs=("strategy", TRAINED))
    max_weight: float = key(MERGING, such_that("0 for no bound, or {number} of at least 1",
        lambda n: n == 0 or 1 <= n < math.inf),
        "Where nodes count by their images, in sums of statistics too, a node counts for at most "
        "this many times the median of all nodes' numbers; 0: for what it states.")
    dissenters: str = key(MERGING, one_of(("keep", "leave-out")), "A node whose changes or "
        "statistics go against all the others' is left out, in rounds of four nodes and more; "
        "`keep` keeps it ([security](security.md)).")
    dp_clip_norm: float = key(PRIVACY, at_least(0), "Local differential privacy: a node cuts what "
        "it has learnt to this length and adds noise; 0: neither "
        "([privacy](privacy.md)).", needs=("strategy", TRAINED))
    dp_epsilon: float = key(PRIVACY, above(0), "Epsilon of one round.")
    dp_delta: float = key(PRIVACY, between(0, 1), "Delta of one round, and of all together.")
    # In one bit, whose error is half as large as they are, weights get worse with every round.
    down_codec: str = key(TRAFFIC, one_of([codec for codec in CODECS if codec != "eden1"]),
        "How slices travel to the nodes ([fewer bytes](fewer-bytes.md)).",
        needs=("strategy", TRAINED))
    up_codec: str = key(TRAFFIC, one_of(CODECS), "How slices come back; `eden1` and `eden2` need "
        "`reply` = `update`.", needs=("strategy", TRAINED))
    reply: str = key(TRAFFIC, one_of(("slice", "update")), "What comes back: the trained `slice`, "
        "or the `update`, its difference from the one that came, which loses less in few bits.",
        needs=("strategy", TRAINED))
    # A factor of 4 bits would lose the directions that vary little.
    statistics_codec: str = key(TRAFFIC, one_of(("fp16", "fp32", "int4", "int8")),
        "How the sums of `anchor`, `fed3r`, `fedcof` and `fedncm` travel; `int4` suffices for "
        "class means alone.")
    zstd: bool = key(TRAFFIC, None, "Whether what codecs make is compressed, without loss, where "
        "that makes it shorter.")
    max_bytes_per_node: int = key(TRAFFIC, at_least(0),
        "The bytes of messages, both ways, that a node may get and send in the run; 0: no limit.")
    max_bytes_per_node_round: int = key(TRAFFIC, at_least(0), "The same in a round.")
    hidden_dim: int = key(CLASSIFIER, within("[1, 100000]"), "The neurons of each hidden layer.")
    hidden_layers: int = key(CLASSIFIER, within("[0, 100]"), "How many there are; 2 in the paper, "
        "which costs IST accuracy ([what helps IST](../results/reference/ist-variants.md)). 0 "
        "makes the classifier a linear head, for strategies that send all of it.")
    random_features: int = key(CLASSIFIER, within("[0, 100000]"), "How many random features of the "
        "embeddings, drawn from `seed`, the classifier gets in their place; 0: the embeddings.",
        needs=("strategy", TRAINED))
    norm: str = key(CLASSIFIER, one_of(NORMS), "`layer` or `batch` normalises each hidden layer "
        "and adds it to the one before.")
    num_rounds: int = key(ROUNDS, at_least(1), "How many rounds a run has.")
    round_every_s: float = key(ROUNDS, at_least(0), "The beat: rounds begin at multiples of it "
        "since 1970, UTC, with `3600` at each full hour, with the nodes that are there. One that "
        "takes longer makes the next begin a beat later. 0: one after the other.", may_change=True)
    fraction_nodes: float = key(ROUNDS, within("(0, 1]"),
        "The share of the nodes that a round asks.")
    min_nodes: int = key(ROUNDS, at_least(1), "A round waits until this many nodes are there.",
        may_change=True)
    enough_share: float = key(ROUNDS, within("(0, 1]"), "A round, or the preparation, goes on "
        "without those who are silent once this share of the nodes, and `min-nodes`, have answered "
        "and a grace time is over; 1 waits for all, until the time is up.", may_change=True)
    round_timeout_s: float = key(ROUNDS, above(0), "A reply that comes later is lost; who is "
        "silent is not waited for as long, see `enough-share`.", may_change=True)
    prepare_timeout_s: float = key(ROUNDS, above(0), "The seconds that nodes have to mask, pack "
        "and encode their images, once.", may_change=True)
    local_epochs: int = key(TRAINING, at_least(0), "Passes over a node's images in a round.")
    local_steps: int = key(TRAINING, at_least(0),
        "Steps of the optimiser in a round, instead of `local-epochs`; 0: none.")
    batch_size: int = key(TRAINING, at_least(1), "Images of one step.")
    optimizer: str = key(TRAINING, one_of(OPTIMIZERS), "What moves the weights in a step.")
    learning_rate: float = key(TRAINING, above(0), "How far a step goes.")
    learning_rate_schedule: str = key(TRAINING, one_of(("constant", "cosine")),
        "How it goes over the rounds: `cosine` falls towards 0 at the last.")
    label_skew: str = key(TRAINING, one_of(("balance", "calibrate", "ignore")), "What a node does "
        "about classes that it has more of than others: `balance` weighs them, `calibrate` "
        "corrects their logits.")
    proximal: float = key(TRAINING, at_least(0),
        "FedProx's mu: holds a node's weights near those that it got; 0: not at all.")
    seed: int = key(RUN, at_least(0), "The seed of everything random: the same one gives the same "
        "`rounds.csv` and `model.safetensors`, byte for byte, on one machine, whichever engine and "
        "however many cores or threads (unless `round-deadline-s` has devices measured).")
    name: str = key(RUN, such_that(RUN_NAMES, lambda name: not name or is_run_name(name)),
        "The run's folder; the time at its start if empty.", may_change=True)
    resume: bool = key(RUN, None,
        "Whether to go on with the run of this `name`, as `--resume` does.", may_change=True)
    results_dir: str = key(RUN, ABSOLUTE, "Where runs have their folders; `results/` of the "
        "checkout if empty.", may_change=True)
    cache_dir: str = key(RUN, ABSOLUTE, "Where packed images, embeddings, partitions and what is "
        "known of encoders are kept; `~/.cache/fed-ist` if empty. It is safe to delete. It is for "
        "its owner alone, unless it is a folder of yours that was there before; entries have "
        "checksums, and a damaged one is made again. A file of the same size and time of change "
        "counts as the same image.", may_change=True)
    # fmt: on

    def __post_init__(self) -> None:
        for name, value in self.to_mapping().items():
            if limit := ROWS[name].limit:
                limit.require(name, value)

    def to_mapping(self) -> dict[str, Value]:
        """The settings by their keys in kebab-case."""
        return {kebab(field.name): getattr(self, field.name) for field in fields(self)}


# By key, in the order of the table.
ROWS: Mapping[str, Row] = {kebab(field.name): field.metadata[ROW] for field in fields(RunConfig)}
NEEDS = {name: row.needs for name, row in ROWS.items() if row.needs}
TYPES: Mapping[str, type] = {kebab(name): kind for name, kind in get_type_hints(RunConfig).items()}
