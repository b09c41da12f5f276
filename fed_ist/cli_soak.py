"""The command that looks for leaks. Everything heavy is imported where it is used."""

from pathlib import Path
from typing import Annotated

import typer

soak_commands = typer.Typer()


@soak_commands.command()
def soak(
    nodes: Annotated[int, typer.Option(min=2, max=200, help="SuperNodes.")] = 8,
    rounds: Annotated[int, typer.Option(min=5, help="Rounds of the run.")] = 500,
    minutes: Annotated[
        float, typer.Option(min=1, help="Ends then, with what it has; starting counts.")
    ] = 240.0,
    out: Annotated[Path, typer.Option(help="Folder for soak.json and soak.md.")] = Path("soak"),
    app: Annotated[
        Path | None, typer.Option(help="The fed-ist checkout, if not the current folder.")
    ] = None,
) -> None:
    """Whether many rounds take more and more memory, open files or disk.

    A SuperLink with its database on disk and SuperNodes run on this machine, in short rounds. The
    report compares rounds 40 to 60 with the last 20, process by process; it is written as the run
    goes.

    Example:

      fed-ist bench soak --nodes 8 --rounds 500 --out soak
    """
    from fed_ist.launch import find_app, run_experiment
    from fed_ist.paths import require_writable

    require_writable(out.absolute(), "--out")
    request = {
        "n_nodes": nodes,
        "n_rounds": rounds,
        "minutes": minutes,
        "out": str(out.absolute()),
    }
    raise typer.Exit(run_experiment(find_app(app), "sims.soak", request))
