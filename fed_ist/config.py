"""One validated, frozen configuration of a run.

The keys are those of Flower's run config, in kebab-case there (`mask-ratio`) and with underscores
here (`mask_ratio`). The defaults live in one place, `[tool.flwr.app.config]` of `pyproject.toml`,
because Flower accepts overrides only of keys that stand there.
"""

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path

from fed_ist.anchors import ANCHORS
from fed_ist.bands import BandChoice, parse_bands, parse_range
from fed_ist.capacity import PROFILES
from fed_ist.codecs import CODECS, NUMBER_BYTES
from fed_ist.datasets import DataSet, open_data
from fed_ist.encoder_spec import EncoderSpec
from fed_ist.errors import InputError, require_choice
from fed_ist.heads import NORMS
from fed_ist.images import Reading
from fed_ist.masks import MASKS, count_visible
from fed_ist.packing import check_codec
from fed_ist.partitions import PARTITIONERS
from fed_ist.paths import cache_dir
from fed_ist.privacy import noise_deviation
from fed_ist.statistics import feature_dim_for_budget

Value = str | int | float | bool
CLOSED_FORMS = ("fed3r", "fedncm", "fedpft")  # solved from what nodes send once: no rounds
GROUPED = ("feddropout", "ist")  # whose slices are as large as `groups` says
SLICED = ("feddropout", "fedrolex", "fjord", "heterofl", "ist")  # whose nodes get slices at all
STRATEGIES = (
    *("fedadam", "fedavg", "fedavgm", "feddropout", "fedrolex", "fjord", "heterofl", "ist", "topk"),
    *CLOSED_FORMS,
)
TRAINED = tuple(name for name in STRATEGIES if name not in CLOSED_FORMS)
OPTIMIZERS = ("adam", "sgd")
DEALINGS = ("random", "rotating")
REPLIES = ("slice", "update")
AGGREGATIONS = ("mean", "trimmed-mean")
DISSENTERS = ("leave-out", "keep")
STATISTICS_CODECS = ("fp32", "fp16")  # coarser sums lose the directions that vary little
SCHEDULES = ("constant", "cosine")
# Keys that are of use only where another key has one of some values.
NEEDS = {
    "server-learning-rate": ("strategy", ("fedadam", "fedavgm")),
    "server-momentum": ("strategy", ("fedadam", "fedavgm")),
    "upload-share": ("strategy", ("topk",)),
    "aggregation": ("strategy", TRAINED),
    "trim-share": ("aggregation", ("trimmed-mean",)),
    "clip-norm": ("strategy", TRAINED),
    "dp-clip-norm": ("strategy", TRAINED),
    "down-codec": ("strategy", TRAINED),
    "up-codec": ("strategy", TRAINED),
    "reply": ("strategy", TRAINED),
    "capacities": ("strategy", SLICED),
    "dealing": ("strategy", ("ist",)),
    "anchor-scale": ("anchor", ("ridge",)),
    "partition-alpha": ("partitioner", ("dirichlet",)),
    "classes-per-node": ("partitioner", ("pathological",)),
    "partition-column": ("partitioner", ("column",)),
}
# Keys that say where and how patiently, not what: a resumed run may have others.
MAY_CHANGE = (
    *("name", "resume", "results-dir", "cache-dir"),
    *("min-nodes", "enough-share", "round-timeout-s", "prepare-timeout-s"),
)
MOST_NAME_BYTES = 100
RUN_NAMES = (
    f"one name of at most {MOST_NAME_BYTES} bytes, without / and \\, that can be printed, is not "
    "dots alone, and begins neither with - nor with a space"
)
LABEL_SKEW = ("ignore", "balance", "calibrate")


@dataclass(frozen=True)
class RunConfig:
    """See the README's table for what each key means."""

    dataset: str
    test_dataset: str
    test_share: float
    partitioner: str
    partition_alpha: float
    classes_per_node: int
    partition_column: str
    bands: str
    band_range: str
    value_range: str
    image_column: str
    label_column: str
    mask: str
    mask_ratio: float
    codec: str
    encoder: str
    encoder_weights: str
    pooling: str
    img_px: int
    precision: str
    strategy: str
    groups: int
    dealing: str
    rescale: bool
    capacities: str
    round_deadline_s: float
    devices: str
    anchor: str
    anchor_bytes: int
    anchor_scale: float
    statistics_noise: float
    server_learning_rate: float
    server_momentum: float
    upload_share: float
    aggregation: str
    trim_share: float
    clip_norm: float
    max_weight: float
    dissenters: str
    dp_clip_norm: float
    dp_epsilon: float
    dp_delta: float
    down_codec: str
    up_codec: str
    reply: str
    statistics_codec: str
    zstd: bool
    max_bytes_per_node: int
    max_bytes_per_node_round: int
    hidden_dim: int
    hidden_layers: int
    norm: str
    num_rounds: int
    fraction_nodes: float
    min_nodes: int
    enough_share: float
    round_timeout_s: float
    prepare_timeout_s: float
    local_epochs: int
    local_steps: int
    batch_size: int
    optimizer: str
    learning_rate: float
    learning_rate_schedule: str
    label_skew: str
    proximal: float
    seed: int
    name: str
    resume: bool
    results_dir: str
    cache_dir: str

    def __post_init__(self) -> None:
        require_choice("partitioner", self.partitioner, PARTITIONERS)
        require_choice("mask", self.mask, MASKS)
        check_codec(self.codec, self.n_channels)
        parse_range("value-range", self.value_range)
        require_choice("strategy", self.strategy, STRATEGIES)
        require_choice("optimizer", self.optimizer, OPTIMIZERS)
        _ = self.encoder_spec  # which looks at its own values
        count_visible(1, self.mask_ratio)
        for key in (
            *("classes_per_node", "hidden_dim", "hidden_layers"),
            *("num_rounds", "batch_size", "min_nodes"),
        ):
            self._require(key, getattr(self, key) >= 1, "a whole number of at least 1")
        for key in (
            *("groups", "local_epochs", "local_steps", "seed", "anchor_bytes"),
            *("max_bytes_per_node", "max_bytes_per_node_round"),
        ):
            self._require(key, getattr(self, key) >= 0, "a whole number of at least 0")
        for key in ("partition_alpha", "round_timeout_s", "prepare_timeout_s", "learning_rate"):
            self._require(key, 0 < getattr(self, key) < float("inf"), "a number above 0")
        for key in ("fraction_nodes", "enough_share"):
            self._require(key, 0 < getattr(self, key) <= 1, "a number in (0, 1]")
        self._require("name", not self.name or is_run_name(self.name), RUN_NAMES)
        self._require("resume", not self.resume or bool(self.name), "true only with a run's name")
        for key in ("results_dir", "cache_dir"):
            value = getattr(self, key)
            self._require(key, not value or Path(value).is_absolute(), "an absolute path, or ''")
        if self.local_epochs == 0 and self.local_steps == 0:
            raise InputError(
                "local-epochs = 0 and local-steps = 0 leave nothing to train: set one of them."
            )
        if self.groups > self.hidden_dim:
            raise InputError(
                f"hidden-dim = {self.hidden_dim} is smaller than groups = {self.groups}: each "
                "group needs a neuron. Use a larger hidden-dim or fewer groups."
            )
        require_choice("anchor", self.anchor, ANCHORS)
        require_choice("norm", self.norm, NORMS)
        require_choice("dealing", self.dealing, DEALINGS)
        require_choice("learning-rate-schedule", self.learning_rate_schedule, SCHEDULES)
        require_choice("label-skew", self.label_skew, LABEL_SKEW)
        for name in self.device_names:
            require_choice("device", name, PROFILES)
        for key in (
            *("statistics_noise", "server_learning_rate", "proximal", "round_deadline_s"),
            *("clip_norm", "dp_clip_norm"),
        ):
            self._require(key, 0 <= getattr(self, key) < float("inf"), "a number of at least 0")
        may_weigh = self.max_weight == 0 or 1 <= self.max_weight < float("inf")
        self._require("max_weight", may_weigh, "0 for no bound, or a number of at least 1")
        self._require("anchor_scale", 0 < self.anchor_scale < float("inf"), "a number above 0")
        self._require("server_momentum", 0 <= self.server_momentum < 1, "a number in [0, 1)")
        self._require("test_share", 0 < self.test_share < 1, "a number between 0 and 1")
        self._require("upload_share", 0 < self.upload_share <= 1, "a number in (0, 1]")
        require_choice("aggregation", self.aggregation, AGGREGATIONS)
        require_choice("dissenters", self.dissenters, DISSENTERS)
        self._require("trim_share", 0 <= self.trim_share <= 0.5, "a number in [0, 0.5]")
        self._require("dp_epsilon", 0 < self.dp_epsilon < float("inf"), "a number above 0")
        self._require("dp_delta", 0 < self.dp_delta < 1, "a number between 0 and 1")
        require_choice("down-codec", self.down_codec, CODECS)
        require_choice("up-codec", self.up_codec, CODECS)
        require_choice("reply", self.reply, REPLIES)
        require_choice("statistics-codec", self.statistics_codec, STATISTICS_CODECS)
        self._require("capacities", bool(self.capacity_levels), "numbers in (0, 1], such as 1,0.5")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.groups > 1 and self.strategy not in GROUPED:
            raise InputError(
                f"groups = {self.groups} does not go with strategy = '{self.strategy}', which does "
                f"not cut the classifier so. Leave groups at 0, or use one of: "
                f"{', '.join(GROUPED)}."
            )
        if self.dealing == "rotating" and self.hidden_layers > 1:
            raise InputError(
                f"dealing = 'rotating' does not go with hidden-layers = {self.hidden_layers}: "
                "weights between neurons of two groups would never be trained. Use hidden-layers "
                "= 1, or dealing = 'random'."
            )
        if self.anchor != "none" and self.strategy in CLOSED_FORMS:
            raise InputError(
                f"anchor = '{self.anchor}' does not go with strategy = '{self.strategy}', which "
                "trains nothing on top of it. Leave anchor at 'none', or use strategy = 'ist'."
            )
        if self.anchor_bytes and self.anchor != "ridge" and self.strategy != "fed3r":
            raise InputError(
                f"anchor-bytes = {self.anchor_bytes} needs anchor = 'ridge', or strategy = 'fed3r'."
            )
        if self.statistics_noise and self.anchor == "none" and self.strategy != "fed3r":
            raise InputError(
                f"statistics-noise = {self.statistics_noise} needs anchor = 'ridge', or strategy = "
                "'fed3r': nothing else that nodes send is noisy."
            )
        sends_sums = self.anchor != "none" or self.strategy in ("fed3r", "fedncm")
        if self.statistics_codec != "fp32" and not sends_sums:
            raise InputError(
                f"statistics-codec = '{self.statistics_codec}' is of no use without sums over "
                "embeddings. Leave it at fp32, or use anchor = 'ridge'."
            )
        if self.aggregation == "trimmed-mean" and self.strategy == "topk":
            raise InputError(
                "aggregation = 'trimmed-mean' does not go with strategy = 'topk': most changes of "
                "a weight are 0 there, and the others would be left out. Use clip-norm."
            )
        if self.aggregation == "trimmed-mean" and self.groups == 0 and self.strategy in GROUPED:
            raise InputError(
                f"aggregation = 'trimmed-mean' does not go with strategy = '{self.strategy}' and "
                "groups = 0, where each node has a slice of its own: set groups to a third of the "
                "nodes or fewer, or use clip-norm."
            )
        if self.strategy == "topk" and (self.up_codec, self.reply) != ("fp32", "slice"):
            raise InputError(
                "strategy = 'topk' has a way of its own to send changes: leave up-codec at 'fp32' "
                "and reply at 'slice', or use strategy = 'fedavg'."
            )
        coarse = {"int4", "int8"} & {self.down_codec, self.up_codec}
        if self.norm == "batch" and (coarse or self.reply == "update" or self.strategy == "topk"):
            raise InputError(
                "norm = 'batch' does not go with changes that are sent, nor with int4 or int8: its "
                "running variances would become 0, or less. Use norm = 'layer'."
            )
        if self.norm == "batch" and self.dp_clip_norm:
            raise InputError(
                f"norm = 'batch' does not go with dp-clip-norm = {self.dp_clip_norm:g}: noise "
                "would make its running variances negative. Use norm = 'layer'."
            )
        if self.round_deadline_s and self.strategy not in SLICED:
            raise InputError(
                f"round-deadline-s = {self.round_deadline_s:g} does not go with strategy = "
                f"'{self.strategy}', whose slices have one size. Leave it at 0, or use one of: "
                f"{', '.join(SLICED)}."
            )
        if self.round_deadline_s > self.round_timeout_s:
            raise InputError(
                f"round-deadline-s = {self.round_deadline_s:g} is more than round-timeout-s = "
                f"{self.round_timeout_s:g}, after which replies are lost: raise the latter too."
            )
        if self.devices and not self.round_deadline_s:
            raise InputError(
                f"devices = {self.devices!r} is of no use without round-deadline-s: set it too."
            )
        if self.resume and self.strategy == "topk":
            raise InputError(
                "resume = true does not go with strategy = 'topk': what its nodes have not sent "
                "yet is lost with the run. Start it anew."
            )
        if self.partitioner == "column" and not self.partition_column:
            raise InputError("partitioner = 'column' needs partition-column, a column's name.")
        if self.value_range and self.bands:
            raise InputError(
                f"value-range = '{self.value_range}' is for images without bands. Say with "
                "band-range which values of the bands become 0 and 255."
            )

    def _require(self, key: str, holds: bool, allowed: str) -> None:
        if not holds:
            value = getattr(self, key)
            raise InputError(f"{kebab(key)} = {value!r} is not possible: give {allowed}.")

    @cached_property
    def capacity_levels(self) -> tuple[float, ...]:
        """The shares of the neurons that nodes can train; empty where they are not possible."""
        try:
            levels = tuple(float(text) for text in self.capacities.split(","))
        except ValueError:
            return ()
        return levels if all(0 < level <= 1 for level in levels) else ()

    @cached_property
    def device_names(self) -> tuple[str, ...]:
        """What simulated nodes are, taken in turn; empty for this machine."""
        return tuple(name.strip() for name in self.devices.split(",")) if self.devices else ()

    @property
    def fixed_codec(self) -> str:
        """What the anchor goes down in: 4 bits are too few for inputs of so unlike variances."""
        return "int8" if self.down_codec == "int4" else self.down_codec

    @cached_property
    def dp_noise(self) -> float:
        """The deviation of what a node adds to each number that it has learnt; 0 for nothing."""
        return noise_deviation(self.dp_clip_norm, self.dp_epsilon, self.dp_delta)

    def count_features(self, num_classes: int) -> int:
        """Random features that ridge regression sees; 0 for the embeddings themselves."""
        if not self.anchor_bytes:
            return 0
        width = NUMBER_BYTES[self.statistics_codec]
        return feature_dim_for_budget(self.anchor_bytes, num_classes, width)

    def count_seen(self, n_examples: int) -> int:
        """Examples that a node trains on in a round, each as often as it is seen."""
        return self.local_steps * self.batch_size or self.local_epochs * n_examples

    @cached_property
    def band_choice(self) -> BandChoice | None:
        """What is read of each image; None for RGB."""
        return parse_bands(self.bands, self.band_range)

    @property
    def n_channels(self) -> int:
        """Channels of each image."""
        return self.band_choice.n_channels if self.band_choice else 3

    @cached_property
    def reading(self) -> Reading:
        """How the images are read."""
        return Reading(
            bands=self.band_choice,
            value_range=parse_range("value-range", self.value_range),
            image_column=self.image_column,
            label_column=self.label_column,
            columns=(self.partition_column,) if self.partition_column else (),
            cache=cache_dir(self.cache_dir),
            run=self.name,
            seed=self.seed,
        )

    def open_data(self, *, is_simulated: bool = True) -> DataSet:
        """The training and the test images of the run.

        is_simulated: else nodes have images of their own, and all that are here may be for the
        test. Raises `InputError` where the configuration names none that can be learnt from.
        """
        share = self.test_share if is_simulated else None
        return open_data(self.dataset, self.test_dataset, self.reading, share)

    @cached_property
    def encoder_spec(self) -> EncoderSpec:
        """What decides an image's embedding, for `fed_ist.encoder.create_encoder`."""
        return EncoderSpec(
            name=self.encoder,
            weights=self.encoder_weights,
            pooling=self.pooling,
            seed=self.seed,
            in_chans=self.n_channels,
            img_px=self.img_px,
            precision=self.precision,
        )

    def check_encoder(self) -> str:
        """Load the encoder, unless it is the bundled one as it comes, which is known to fit.

        Returns what the user should know of it, if anything.
        """
        usual = EncoderSpec(pooling="cls", seed=self.seed, in_chans=self.n_channels)
        if self.encoder_spec != usual:
            from fed_ist.known_encoder import open_encoder
            from fed_ist.paths import cache_dir

            return open_encoder(self.encoder_spec, cache_dir(self.cache_dir)).note
        return ""

    def require_same(self, began: "RunConfig") -> None:
        """Raise `InputError` unless a run that began with `began` may be resumed with this."""
        before = began.to_mapping()
        for key, value in self.to_mapping().items():
            if value != before[key] and key not in MAY_CHANGE:
                raise InputError(
                    f"{key} = {value!r}, but the run began with {before[key]!r}: it can be resumed "
                    f"with the same settings only, but for {', '.join(MAY_CHANGE)}."
                )

    def to_toml(self) -> str:
        """The configuration as `flwr run --run-config FILE` reads it."""
        return write_toml(self.to_mapping())

    def to_mapping(self) -> dict[str, Value]:
        """Kebab-case keys and their values."""
        return {kebab(field.name): getattr(self, field.name) for field in fields(self)}


def is_run_name(name: str) -> bool:
    """Whether a run's folder can have this name, and commands can be given it."""
    is_part = name == Path(name).name and "\\" not in name and name.strip(". ") != ""
    is_plain = name.isprintable() and name == name.strip() and not name.startswith("-")
    return is_part and is_plain and len(name.encode(errors="replace")) <= MOST_NAME_BYTES


def write_toml(values: Mapping[str, Value]) -> str:
    """Flat TOML: JSON's strings, numbers and booleans are TOML's too."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def kebab(key: str) -> str:
    return key.replace("_", "-")


def parse_config(values: Mapping[str, object]) -> RunConfig:
    """Build a `RunConfig` from run-config keys.

    Raises `InputError` for an unknown or missing key, a value of the wrong type, or one that is not
    possible.
    """
    # For each message nodes parse the same again. 1, 1.0 and True are equal, and not the same here.
    if all(isinstance(value, str | int | float) for value in values.values()):
        return _parse_once(tuple((key, type(value), value) for key, value in values.items()))
    return _parse(values)


@lru_cache(maxsize=8)
def _parse_once(items: tuple[tuple[str, type, object], ...]) -> RunConfig:
    return _parse({key: value for key, _, value in items})


def _parse(values: Mapping[str, object]) -> RunConfig:
    kinds = {kebab(field.name): field.type for field in fields(RunConfig)}
    for key in values:
        if key not in kinds:
            close = difflib.get_close_matches(key, kinds, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise InputError(
                f"Unknown config key '{key}'.{hint} Known keys: {', '.join(sorted(kinds))}."
            )
    missing = [key for key in kinds if key not in values]
    if missing:
        raise InputError(f"Config keys are missing: {', '.join(missing)}.")
    typed = {
        key.replace("-", "_"): _typed(key, values[key], kind)  # type: ignore[arg-type]
        for key, kind in kinds.items()
    }
    return RunConfig(**typed)  # type: ignore[arg-type]


def require_used(config: RunConfig, chosen: Iterable[str]) -> None:
    """Raise `InputError` for a key that a user chose and that changes nothing in this run."""
    values = config.to_mapping()
    for key in chosen:
        if key in NEEDS:
            other, useful = NEEDS[key]
            if values[other] not in useful:
                raise InputError(
                    f"{key} = {values[key]!r} is of no use with {other} = {values[other]!r}. Leave "
                    f"it out, or use {other} = {' or '.join(useful)}."
                )


def _typed(key: str, value: object, kind: type) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and type(value) in (int, float):  # `--set bands=4` is read as a number
        return str(value)
    if type(value) is not kind:
        names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        raise InputError(f"{key} = {value!r} is not possible: give {names[kind]}.")
    return value


def read_defaults(pyproject: Path) -> dict[str, Value]:
    """The run-config defaults of an app: `[tool.flwr.app.config]` of its pyproject.toml."""
    with pyproject.open("rb") as file:
        config: dict[str, Value] = tomllib.load(file)["tool"]["flwr"]["app"]["config"]
    return config


def read_preset(path: Path) -> dict[str, Value]:
    """The run-config keys of a TOML file."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise InputError(f"There is no preset '{path}'.") from None
    except (OSError, ValueError, RecursionError) as error:  # no TOML, or no UTF-8
        raise InputError(f"Preset '{path}' cannot be read: {error}.") from None


def absolute_paths(values: Mapping[str, Value]) -> dict[str, Value]:
    """The same run-config keys, with paths to files and folders of this machine made absolute."""
    found = dict(values)
    words = ("", "scenes", "pretrained", "random")
    for key in ("dataset", "test-dataset", "encoder-weights"):
        value = found.get(key)
        if isinstance(value, str) and value not in words and Path(value).expanduser().exists():
            found[key] = str(Path(value).expanduser().resolve())
    return found


def parse_setting(setting: str) -> tuple[str, Value]:
    """`key=value` from the command line; the key with '-' or '_', text with or without quotes."""
    key, separator, text = setting.partition("=")
    if not separator:
        raise InputError(f"--set {setting} is not possible: give key=value.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if not isinstance(value, str | int | float | bool):
        value = text
    return kebab(key.strip()), value
