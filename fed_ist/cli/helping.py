"""Help of commands as plain text, whatever the versions of typer and click.

Typer puts a backslash before each bracket of a default, for rich, also where rich does not print
it. And where click is 8.5 or newer, typer 0.20 forgets the help of arguments, as click has a field
of the same name.
"""

import inspect
from collections.abc import Iterable, Mapping

import click
from typer.core import TyperArgument, TyperGroup


class _Formatter(click.HelpFormatter):
    """Writes help without the backslashes, and with the help of arguments.

    told: what is called in help as the key -> the help that it lacks.
    """

    def __init__(self, told: Mapping[str, str], width: int | None, max_width: int | None) -> None:
        super().__init__(width=width, max_width=max_width)
        self._told = told

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        whole = [(name, f"{self._told.get(name, '')}  {text}".strip()) for name, text in rows]
        super().write_dl(
            [(name, text.replace("\\[", "[")) for name, text in whole], col_max, col_spacing
        )


class _Context(click.Context):
    def make_formatter(self) -> click.HelpFormatter:
        told = _forgotten(self.command, self)
        return _Formatter(told, self.terminal_width, self.max_content_width)


class Commands(TyperGroup):
    """A group of commands whose help is plain and whole."""

    context_class = _Context

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, if there is one."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            command.context_class = _Context
        return command


def _forgotten(command: click.Command, ctx: click.Context) -> dict[str, str]:
    """The help of a command's arguments that lost it, as their function's annotations have it."""
    if command.callback is None:
        return {}
    parameters = inspect.signature(inspect.unwrap(command.callback)).parameters
    found = {}
    for argument in command.params:
        if isinstance(argument, TyperArgument) and argument.help is None and argument.name:
            told = getattr(parameters[argument.name].annotation, "__metadata__", ())
            found[argument.make_metavar(ctx)] = next((str(t.help) for t in told if t.help), "")
    return found
