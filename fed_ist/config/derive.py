"""What a run's settings mean to the rooms below, which take plain arguments instead."""

from fed_ist.classifier.layout import Params, init_params
from fed_ist.config.choices import read_capacities, read_devices
from fed_ist.config.run_config import RunConfig
from fed_ist.datasets.data_set import DataSet, open_data
from fed_ist.encoder.embeddings import MaskSpec
from fed_ist.encoder.known import AnyEncoder, open_encoder
from fed_ist.encoder.spec import EncoderSpec
from fed_ist.files.paths import cache_dir
from fed_ist.images.bands import BandChoice, parse_bands, parse_range
from fed_ist.images.source import Reading
from fed_ist.rng import generator
from fed_ist.statistics.ridge import feature_dim_for_budget
from fed_ist.traffic.codecs import NUMBER_BYTES, ROTATED
from fed_ist.training.boards import PROFILES, Device
from fed_ist.training.local import LocalTraining, share_of_rate
from fed_ist.training.privacy import noise_deviation
from fed_ist.training.workload import Workload


def band_choice(config: RunConfig) -> BandChoice | None:
    """The bands that are read of each image; None for RGB."""
    return parse_bands(config.bands, config.band_range)


def n_channels(config: RunConfig) -> int:
    """How many channels each image has."""
    bands = band_choice(config)
    return bands.n_channels if bands else 3


def reading(config: RunConfig) -> Reading:
    """How a run's images are read."""
    return Reading(
        bands=band_choice(config),
        value_range=parse_range("value-range", config.value_range),
        image_column=config.image_column,
        label_column=config.label_column,
        columns=(config.partition_column,) if config.partition_column else (),
        cache=cache_dir(config.cache_dir),
        run=config.name,
        seed=config.seed,
    )


def open_run_data(config: RunConfig, *, is_simulated: bool = True) -> DataSet:
    """The training and the test images of a run.

    is_simulated: whether nodes share the training images; otherwise nodes have images of their own,
    and all images here may be for the test. Raises `InputError` where the settings name no images
    that can be learnt from.
    """
    share = config.test_share if is_simulated else None
    return open_data(config.dataset, config.test_dataset, reading(config), share)


def mask_spec(config: RunConfig, encoder: AnyEncoder, coordinates: tuple[int, ...]) -> MaskSpec:
    """How a run's images are masked and packed for its encoder.

    coordinates: of the mask's random stream, see `MaskSpec`.
    """
    return MaskSpec(
        mask=config.mask,
        mask_ratio=config.mask_ratio,
        codec=config.codec,
        img_px=encoder.img_px,
        patch_px=encoder.patch_px,
        seed=config.seed,
        coordinates=coordinates,
        channels=n_channels(config),
        interpolation=encoder.interpolation,
    )


def encoder_spec(config: RunConfig) -> EncoderSpec:
    """Everything in the settings that changes an image's embedding."""
    return EncoderSpec(
        name=config.encoder,
        weights=config.encoder_weights,
        pooling=config.pooling,
        seed=config.seed,
        in_chans=n_channels(config),
        img_px=config.img_px,
        precision=config.precision,
    )


def require_encoder(config: RunConfig) -> str:
    """Load a run's encoder, so that what is wrong with it is said before the run starts.

    The bundled encoder with its own settings is not loaded, as it is known to work. Returns a
    sentence that the user should read about the encoder, or "".
    """
    spec = encoder_spec(config)
    if spec == EncoderSpec(seed=config.seed, in_chans=spec.in_chans):
        return ""
    return open_encoder(spec, cache_dir(config.cache_dir)).note


def capacity_levels(config: RunConfig) -> tuple[float, ...]:
    """The shares of the neurons that simulated nodes can train, which they take in turn."""
    return read_capacities(config.capacities)


def simulated_device(config: RunConfig, number: int) -> Device | None:
    """The board that the simulated node with this number is; None for this machine."""
    names = read_devices(config.devices)
    return PROFILES[names[number % len(names)]] if names else None


def local_training(config: RunConfig, server_round: int = 1) -> LocalTraining:
    """How a node trains in a round; rounds count from 1."""
    share = share_of_rate(config.learning_rate_schedule, server_round, config.num_rounds)
    return LocalTraining(
        config.local_epochs,
        config.local_steps,
        config.batch_size,
        config.optimizer,
        config.learning_rate * share,
        config.label_skew,
        config.proximal,
    )


def plan_workload(config: RunConfig, embed_dim: int, num_classes: int, n_examples: int) -> Workload:
    """What a round of training asks of a node that has `n_examples` examples."""
    how = local_training(config)
    return Workload(
        embed_dim=count_inputs(config, embed_dim),
        hidden_dim=config.hidden_dim,
        num_classes=num_classes,
        hidden_layers=config.hidden_layers,
        norm=config.norm,
        optimizer=config.optimizer,
        batch_size=config.batch_size,
        n_examples=n_examples,
        n_seen=how.count_seen(n_examples),
        n_steps=how.count_steps(n_examples),
        down_codec=config.down_codec,
        up_codec=config.up_codec,
    )


def count_inputs(config: RunConfig, embed_dim: int) -> int:
    """The inputs of the classifier's first layer: the numbers of an embedding, or features."""
    return config.random_features or embed_dim


def draw_classifier(config: RunConfig, n_inputs: int, num_classes: int) -> Params:
    """The classifier that a run starts from, as the server and each node draw it from the seed:
    float32 arrays, named as in `fed_ist.classifier.layout`.

    n_inputs: see `count_inputs`.
    """
    rng, layers = generator(config.seed, "init"), config.hidden_layers
    return init_params(n_inputs, config.hidden_dim, num_classes, rng, layers, config.norm)


def count_features(config: RunConfig, num_classes: int) -> int:
    """How many random features ridge regression gets; 0 where it gets the embeddings themselves.

    Raises `InputError` where `anchor-bytes` is too little for one feature.
    """
    if not config.anchor_bytes:
        return 0
    width = NUMBER_BYTES.get(config.statistics_codec, 1)
    return feature_dim_for_budget(config.anchor_bytes, num_classes, width)


def fixed_codec(config: RunConfig) -> str:
    """The codec in which the anchor is sent to nodes.

    It never has 4 bits or fewer: these are too few for inputs of very unlike variances.
    """
    return "int8" if config.down_codec in ("int4", *ROTATED) else config.down_codec


def dp_noise(config: RunConfig) -> float:
    """The standard deviation of the noise on each number that a node has learnt; 0 for no noise."""
    return noise_deviation(config.dp_clip_norm, config.dp_epsilon, config.dp_delta)
