"""The command that gives an encoder the statistics of its embeddings."""

from pathlib import Path
from typing import Annotated

import typer

from fed_ist.cli.encoders import BandRange, Bands, ImageColumn, ValueRange, reading_of
from fed_ist.errors import InputError
from fed_ist.printable import printable

calibrations = typer.Typer()


@calibrations.command()
def calibrate(
    encoder: Annotated[str, typer.Argument(help="An encoder's name.")],
    images: Annotated[str, typer.Argument(help="A folder of images, or a parquet file.")],
    out: Annotated[Path, typer.Option(help="The file to write, such as mine.safetensors.")],
    weights: Annotated[str, typer.Option(help="pretrained, or a file.")] = "pretrained",
    img_px: Annotated[int, typer.Option(min=0, help="Side of the images; 0: the model's.")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="Images at most; 0: all.")] = 0,
    bands: Bands = "",
    band_range: BandRange = "",
    value_range: ValueRange = "",
    image_column: ImageColumn = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of --limit.")] = 0,
) -> None:
    """Give an encoder the mean and covariance of its embeddings, from images without labels.

    With them its embeddings come half-way decorrelated, and a classifier learns from them in fewer
    rounds. Some hundreds of images do. Give the file to a run as encoder-weights.

    Example:

      fed-ist calibrate vit_small_patch14_dinov2.lvd142m images --out dinov2.safetensors
    """
    from fed_ist.datasets.data_set import open_all
    from fed_ist.encoder.calibrate import calibrate as calibrated
    from fed_ist.encoder.frozen import check_encoder
    from fed_ist.encoder.spec import EncoderSpec
    from fed_ist.files.atomic import write_atomic
    from fed_ist.files.paths import cache_dir, require_writable
    from fed_ist.pretraining.lessons import sampled

    if weights == "random":
        raise InputError("--weights random is no encoder to calibrate. Give pretrained, or a file.")
    reading = reading_of(bands, band_range, value_range, image_column)
    spec = EncoderSpec(encoder, weights, "avg", 0, reading.n_channels, img_px)
    check_encoder(spec)
    if out.suffix != ".safetensors":
        raise InputError(f"--out '{out}' is to be a file that ends in .safetensors.")
    if out.exists():
        raise InputError(f"'{out}' exists already, and nothing is ever overwritten.")
    require_writable(out.absolute().parent, "--out")
    source = sampled(
        open_all(images, reading, lambda text: typer.echo(text, err=True)), limit, seed
    )
    skipped: list[str] = []
    data = calibrated(spec, source, cache_dir(""), skipped.append)
    if skipped:
        typer.echo(f"skipped {len(skipped)} unreadable images, the first: {skipped[0]}", err=True)
    write_atomic(out, data)
    typer.echo(f"weights  {printable(out.resolve())}  {len(data) / 1e6:.1f} MB")
