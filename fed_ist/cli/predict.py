"""The commands on images and a trained classifier: `fed-ist predict` and `pack`.

Everything heavy is imported where it is used.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fed_ist.cli.encoders import BandRange, Bands, ImageColumn, ValueRange, reading_of
from fed_ist.printable import printable

if TYPE_CHECKING:
    from fed_ist.runs.confusion import Confusion

predictions = typer.Typer()


@predictions.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A finished run, by name or path.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    top_k: Annotated[int, typer.Option(min=1, help="The likeliest classes of each image.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One object of JSON in a line.")] = False,
) -> None:
    """Classify images with the result of a run: prints image, class and probability.

    Where folders name the classes, it ends with the accuracy and what is taken for what.
    """
    from fed_ist.runs.confusion import Confusion
    from fed_ist.runs.lookup import find_run
    from fed_ist.runs.predict import classify
    from fed_ist.runs.reading import open_run

    skipped: list[str] = []

    def skip(reason: str) -> None:
        skipped.append(reason)
        typer.echo(f"skipped: {printable(reason)}", err=True)

    model = open_run(find_run(run)).model
    confusion = Confusion()
    for found in classify(model, images, skip):
        order = found.probabilities.argsort()[::-1][:top_k]
        likeliest = [(model.class_names[i], float(found.probabilities[i])) for i in order]
        if found.truth:
            confusion.add(found.truth, likeliest[0][0])
        if as_json:
            classes = [{"class": name, "probability": round(p, 6)} for name, p in likeliest]
            typer.echo(
                json.dumps({"image": found.name, "classes": classes, "truth": found.truth or None})
            )
        else:
            told = "".join(f"\t{printable(name)}\t{p:.3f}" for name, p in likeliest)
            typer.echo(f"{found.name}{told}")
    if confusion.n_images and not as_json:
        _tell_accuracy(confusion)
    if skipped:
        typer.echo(f"{len(skipped)} could not be classified", err=True)
        raise typer.Exit(2)


def _tell_accuracy(confusion: "Confusion") -> None:
    """Print how often a model was right, on stderr: what is on stdout is one image in a line."""
    rows = confusion.rows()
    width = max(len(printable(name)) for name, *_ in rows)
    for name, n_images, share, wrong in rows:
        taken = f"  taken for {printable(wrong)}" if wrong else ""
        typer.echo(f"{printable(name):{width}} {n_images:6} {100 * share:5.1f}%{taken}", err=True)
    told = f"{100 * confusion.accuracy:.1f}% of {confusion.n_images} images"
    typer.echo(f"accuracy {told}", err=True)


@predictions.command()
def pack(
    images: Annotated[str, typer.Argument(help="A folder of <class>/<image>, or a parquet file.")],
    out: Annotated[Path, typer.Option(help="The packed file to write.")],
    mask: Annotated[str, typer.Option(help="Which patches are kept.")] = "fixed",
    mask_ratio: Annotated[float, typer.Option(help="Share of the patches to drop.")] = 0.5,
    codec: Annotated[str, typer.Option(help="raw, jpeg or webp.")] = "raw",
    img_px: Annotated[int, typer.Option(min=1, help="Side to which images are scaled.")] = 64,
    patch_px: Annotated[int, typer.Option(min=1, help="Side of a patch.")] = 8,
    bands: Bands = "",
    band_range: BandRange = "",
    value_range: ValueRange = "",
    image_column: ImageColumn = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the masks.")] = 0,
) -> None:
    """Pack masked images into one file and print what that saves."""
    from fed_ist.datasets.data_set import open_all
    from fed_ist.encoder.embeddings import MaskSpec
    from fed_ist.encoder.embeddings import pack as pack_images
    from fed_ist.encoder.spec import require_whole_patches
    from fed_ist.files.paths import require_absent, require_writable
    from fed_ist.images.packing import check_codec
    from fed_ist.words import readable_bytes

    require_whole_patches(f"--img-px {img_px}", img_px, patch_px, f"--patch-px {patch_px}")
    reading = reading_of(bands, band_range, value_range, image_column)
    source = open_all(images, reading, lambda text: typer.echo(text, err=True))
    check_codec(codec, source.channels)
    spec = MaskSpec(mask, mask_ratio, codec, img_px, patch_px, seed, (), source.channels)
    require_absent(out)
    require_writable(out.absolute().parent, "--out")
    packed = pack_images(
        source, spec, out, lambda reason: typer.echo(f"skipped: {reason}", err=True)
    )
    n = packed.n_images
    typer.echo(f"images           {n} ({packed.n_skipped} skipped)")
    for label, n_bytes in (
        ("original files", packed.original_bytes),
        ("raw pixels", packed.raw_bytes),
        ("packed", out.stat().st_size),
    ):
        if n_bytes:
            typer.echo(f"{label:16} {readable_bytes(n_bytes / n)} an image")
