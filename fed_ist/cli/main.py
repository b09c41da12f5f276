"""The `fed-ist` command.

Everything heavy is imported where it is used, so that --help is quick.
"""

import sys
from typing import Annotated

import typer

from fed_ist.cli.calibrate import calibrations
from fed_ist.cli.deploy import deployment
from fed_ist.cli.encoders import bench, encoders
from fed_ist.cli.experiments import experiments
from fed_ist.cli.helping import Commands
from fed_ist.cli.inspect import inspections
from fed_ist.cli.plan import plans
from fed_ist.cli.predict import predictions
from fed_ist.cli.reports import reports
from fed_ist.cli.rounds import round_commands
from fed_ist.cli.run import training
from fed_ist.cli.wire import wire_commands
from fed_ist.errors import OF_THE_DISK, InputError, file_trouble
from fed_ist.printable import guard_terminal, indented, printable

cli = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    suggest_commands=False,  # click does
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train an image classifier across devices with little bandwidth and little compute.\n\n"
    "Start with `fed-ist run`: a simulation on the built-in data set, offline, in minutes. "
    "Then try your own images: `fed-ist run IMAGES` (a folder of <class>/<image>), look at "
    "results/<run>/report.html, and classify with `fed-ist predict`.",
)
cli.add_typer(training)
cli.add_typer(predictions)
cli.add_typer(experiments)
cli.add_typer(encoders)
cli.add_typer(calibrations)
cli.add_typer(inspections)
cli.add_typer(wire_commands)
bench.add_typer(round_commands)
cli.add_typer(plans)
cli.add_typer(reports)
cli.add_typer(deployment)


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"fed-ist {version('fed-ist')}")
        raise typer.Exit


@cli.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Options of the command itself."""


def main() -> None:
    """The console script: bad input, or a full disk, is one sentence on stderr and exit code 2."""
    guard_terminal()
    try:
        cli()
    except InputError as error:
        print(f"fed-ist: {indented(str(error))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        what = printable(file_trouble(error))
        print(f"fed-ist: {what}. Make room or mend it, or choose another place.", file=sys.stderr)
        sys.exit(2)
