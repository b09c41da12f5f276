"""The commands that show runs: as a page, as a table, and while they go on.

Everything heavy is imported where it is used, so that --help is quick.
"""

from pathlib import Path
from typing import Annotated

import typer

from fed_ist.cli.plan import Accuracy, ChosenDevice, ChosenLinks, ImagesPerS, Markdown
from fed_ist.errors import InputError
from fed_ist.printable import printable

reports = typer.Typer()


@reports.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Runs, finished or not, by name or path.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the report; that of the run if there is only one."),
    ] = None,
    accuracy: Accuracy = None,
    link: ChosenLinks = None,
    device: ChosenDevice = "pi-4",
    images_per_s: ImagesPerS = None,
) -> None:
    """Write one page of a run, or of several side by side, with its data as JSON and CSV.

    The page needs no network, and prints. Its plan is that of `fed-ist plan`.

    Examples:

      fed-ist report results/mine

      fed-ist report results/mine results/yours --accuracy 0.75 --out both
    """
    from fed_ist.planning.plan import Question
    from fed_ist.reports.run import write_run_report
    from fed_ist.runs.lookup import find_run
    from fed_ist.traffic.links import choose_links

    question = Question(accuracy, device, images_per_s=images_per_s)
    folders = [find_run(run) for run in runs]
    typer.echo(
        f"report    {printable(write_run_report(folders, out, question, choose_links(link)))}"
    )


@reports.command()
def watch(
    run: Annotated[Path, typer.Argument(help="A run that goes on, by name or path.")],
    wait_s: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for the folder to appear.")
    ] = 60.0,
) -> None:
    """Follow a run, round by round, until it ends."""
    from fed_ist.reports.watch import follow, wait_for

    try:
        found = wait_for(run, wait_s, lambda text: typer.echo(text, err=True))
        try:
            follow(found, typer.echo)
        except KeyboardInterrupt:
            typer.echo("No longer watched; the run itself is not ended by this.", err=True)
            raise typer.Exit(130) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@reports.command()
def table(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs, by name or path.")],
    markdown: Markdown = False,
) -> None:
    """Print a table of runs: accuracy, and bytes to and from each client and round."""
    from fed_ist.reports.table import render_table, show_table
    from fed_ist.runs.lookup import find_run
    from fed_ist.runs.reading import open_run

    found = []
    for run in runs:
        try:
            files = open_run(find_run(run))
            render_table([files])
            found.append(files)
        except InputError as reason:
            typer.echo(f"skipped: {printable(run.name)}: {printable(reason)}", err=True)
    if not found:
        raise InputError("None of these is a run. Give folders that runs wrote: results/<name> ...")
    typer.echo(render_table(found) if markdown else show_table(found))
