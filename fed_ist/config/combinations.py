"""The values of keys that do not go together, though each is possible alone."""

from fed_ist.config.derive import band_choice, n_channels
from fed_ist.config.methods import CLOSED_FORMS, GROUPED, SLICED
from fed_ist.config.run_config import RunConfig
from fed_ist.errors import InputError
from fed_ist.images.packing import check_codec
from fed_ist.traffic.codecs import DRAWN, ROTATED, STEPS

GRAMS = ("inputs", "ridge")  # values of `anchor` that are solved from sums of products

MOST_WEIGHTS = 500_000_000  # between hidden layers: 2 GB, and training takes several times as much


def require_possible(config: RunConfig) -> None:
    """Raise `InputError` where two values do not go together, or one value needs another key."""
    _images(config)
    _linear_head(config)
    _size(config)
    _random_features(config)
    _slices(config)
    _statistics(config)
    _trimming(config)
    _changes(config)
    _deadlines(config)
    _run(config)


def _images(config: RunConfig) -> None:
    band_choice(config)  # which refuses a range without bands
    check_codec(config.codec, n_channels(config))
    if config.partitioner == "column" and not config.partition_column:
        raise InputError("partitioner = 'column' needs partition-column, a column's name.")
    if config.value_range and config.bands:
        raise InputError(
            f"value-range = '{config.value_range}' is for images without bands. Say with "
            "band-range which values of the bands become 0 and 255."
        )


def _linear_head(config: RunConfig) -> None:
    if config.hidden_layers:
        return
    if config.strategy in SLICED:
        raise InputError(
            f"hidden-layers = 0 does not go with strategy = '{config.strategy}': a linear head has "
            "no hidden neurons to deal. Use hidden-layers = 1 or more, or strategy = 'fedavg'."
        )
    if config.norm != "none":
        raise InputError(
            f"norm = '{config.norm}' does not go with hidden-layers = 0: there is no hidden layer "
            "to normalise. Leave norm at 'none'."
        )


def _size(config: RunConfig) -> None:
    n_weights = max(0, config.hidden_layers - 1) * config.hidden_dim**2
    if n_weights > MOST_WEIGHTS:
        raise InputError(
            f"hidden-dim = {config.hidden_dim} with hidden-layers = {config.hidden_layers} makes a "
            f"classifier of {n_weights:.1e} weights: give at most {MOST_WEIGHTS:.0e}, as with "
            "fewer or narrower layers."
        )


def _random_features(config: RunConfig) -> None:
    if config.random_features and config.anchor != "none":
        raise InputError(
            f"random-features = {config.random_features} does not go with anchor = "
            f"'{config.anchor}', which is solved on the embeddings. Leave one of them out."
        )


def _slices(config: RunConfig) -> None:
    if config.groups > config.hidden_dim:
        raise InputError(
            f"hidden-dim = {config.hidden_dim} is smaller than groups = {config.groups}: each "
            "group needs a neuron. Use a larger hidden-dim or fewer groups."
        )
    if config.groups > 1 and config.strategy not in GROUPED:
        raise InputError(
            f"groups = {config.groups} does not go with strategy = '{config.strategy}', which does "
            f"not cut the classifier so. Leave groups at 0, or use one of: {', '.join(GROUPED)}."
        )
    if config.dealing == "rotating" and config.hidden_layers > 1:
        raise InputError(
            f"dealing = 'rotating' does not go with hidden-layers = {config.hidden_layers}: "
            "weights between neurons of two groups would never be trained. Use hidden-layers "
            "= 1, or dealing = 'random'."
        )


def _statistics(config: RunConfig) -> None:
    has_anchor, strategy = config.anchor != "none", config.strategy
    if has_anchor and strategy in CLOSED_FORMS:
        raise InputError(
            f"anchor = '{config.anchor}' does not go with strategy = '{strategy}', which "
            "trains nothing on top of it. Leave anchor at 'none', or use strategy = 'ist'."
        )
    if config.anchor_bytes and config.anchor != "ridge" and strategy != "fed3r":
        raise InputError(
            f"anchor-bytes = {config.anchor_bytes} needs anchor = 'ridge', or strategy = 'fed3r'."
        )
    if config.statistics_codec == "int4" and (config.anchor in GRAMS or strategy == "fed3r"):
        raise InputError(
            "statistics-codec = 'int4' is too coarse for sums of products, which "
            f"{_asking(config)} asks for. Use int8, or anchor = 'means'."
        )
    if config.statistics_noise and (config.anchor == "means" or config.statistics_codec in STEPS):
        raise InputError(
            f"statistics-noise = {config.statistics_noise} needs anchor = 'ridge' or 'inputs', or "
            "strategy = 'fed3r', with statistics-codec = 'fp32' or 'fp16'."
        )
    if config.statistics_noise and not has_anchor and strategy != "fed3r":
        raise InputError(
            f"statistics-noise = {config.statistics_noise} needs anchor = 'ridge', or strategy = "
            "'fed3r': nothing else that nodes send is noisy."
        )
    with_codec = ("fed3r", "fedcof", "fedncm")
    if config.statistics_codec != "fp32" and not has_anchor and strategy not in with_codec:
        raise InputError(
            f"statistics-codec = '{config.statistics_codec}' is of no use without sums over "
            "embeddings. Leave it at fp32, or use anchor = 'ridge'."
        )


def _asking(config: RunConfig) -> str:
    """The setting that asks nodes for sums of products."""
    return f"anchor = '{config.anchor}'" if config.anchor in GRAMS else "strategy = 'fed3r'"


def _trimming(config: RunConfig) -> None:
    if config.aggregation != "trimmed-mean":
        return
    if config.strategy == "topk":
        raise InputError(
            "aggregation = 'trimmed-mean' does not go with strategy = 'topk': most changes of "
            "a weight are 0 there, and the others would be left out. Use clip-norm."
        )
    if config.groups == 0 and config.strategy in GROUPED:
        raise InputError(
            f"aggregation = 'trimmed-mean' does not go with strategy = '{config.strategy}' and "
            "groups = 0, where each node has a slice of its own: set groups to a third of the "
            "nodes or fewer, or use clip-norm."
        )


def _changes(config: RunConfig) -> None:
    """Settings of changes, which nodes send to be added to the classifier instead of weights."""
    is_topk, sends_changes = config.strategy == "topk", config.reply == "update"
    if is_topk and (sends_changes or config.up_codec != "fp32"):
        raise InputError(
            "strategy = 'topk' has a way of its own to send changes: leave up-codec at 'fp32' "
            "and reply at 'slice', or use strategy = 'fedavg'."
        )
    if config.up_codec in ROTATED and not sends_changes:
        raise InputError(
            f"up-codec = '{config.up_codec}' is too coarse for weights: its error is about as "
            "large as they are. Set reply = 'update', so that changes are sent, or use int4."
        )
    coarse = set(DRAWN) & {config.down_codec, config.up_codec}
    if config.norm == "batch" and (coarse or sends_changes or is_topk):
        raise InputError(
            f"norm = 'batch' does not go with changes that are sent, nor with "
            f"{', '.join(DRAWN)}: its running variances would become 0, or less. "
            "Use norm = 'layer'."
        )
    if config.norm == "batch" and config.dp_clip_norm:
        raise InputError(
            f"norm = 'batch' does not go with dp-clip-norm = {config.dp_clip_norm:g}: noise "
            "would make its running variances negative. Use norm = 'layer'."
        )


def _deadlines(config: RunConfig) -> None:
    deadline_s, timeout_s = config.round_deadline_s, config.round_timeout_s
    if deadline_s and config.strategy not in SLICED:
        raise InputError(
            f"round-deadline-s = {deadline_s:g} does not go with strategy = '{config.strategy}', "
            "whose slices have one size. Leave it at 0, or use one of: "
            f"{', '.join(SLICED)}."
        )
    if deadline_s > timeout_s:
        raise InputError(
            f"round-deadline-s = {deadline_s:g} is more than round-timeout-s = {timeout_s:g}, "
            "after which replies are lost: raise the latter too."
        )
    if config.devices and not deadline_s:
        raise InputError(
            f"devices = {config.devices!r} is of no use without round-deadline-s: set it too."
        )


def _run(config: RunConfig) -> None:
    if config.local_epochs == 0 and config.local_steps == 0:
        raise InputError(
            "local-epochs = 0 and local-steps = 0 leave nothing to train: set one of them."
        )
    if config.resume and not config.name:
        raise InputError("resume = True is not possible: give true only with a run's name.")
    if config.resume and config.strategy == "topk":
        raise InputError(
            "resume = true does not go with strategy = 'topk': what its nodes have not sent "
            "yet is lost with the run. Start it anew."
        )
