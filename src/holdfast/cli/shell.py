"""What every command gets: lazy loading, the global options anywhere on the line, errors in one form, exit codes.

A command's function returns None or its exit code. Whatever goes wrong is raised from the tree in `holdfast.errors`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Final

import click

from holdfast.cli.settings import Settings
from holdfast.errors import HoldfastError, UsageError

INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
_WIDTH_MAX: Final = 100
PARTIAL: Final = 3
"""Some of what was asked was done and some was not; stderr says which."""

Rooms = Mapping[str, Mapping[str, tuple[str, str]]]
"""Heading -> command -> (module below `holdfast.cli`, its line in the overview)."""


class Command(click.Command):
    """A command that takes the global options too, so that they may stand behind its name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        taken = {flag for param in self.params for flag in param.opts}  # a command may mean its own thing by a word
        self.params += [param for param in _global_options() if taken.isdisjoint(param.opts)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options first, the global ones under a heading of their own."""
        _format_options(self, ctx, formatter)


class Shell(click.Group):
    """The group of all commands; knows their names without loading them."""

    command_class = Command

    def __init__(self, *, rooms: Rooms, **kwargs: Any) -> None:
        kwargs["context_settings"] = {"help_option_names": ["-h", "--help"]}
        super().__init__(**kwargs)
        self._rooms = rooms
        self.commands = _Lazy({name: module for room in rooms.values() for name, (module, _) in room.items()})
        self.params += _global_options()
        self.params.append(
            click.Option(
                ["--version"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_version,
                help="show the version",
            )
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview of the commands, and the options that all of them take."""
        for heading, room in self._rooms.items():
            with formatter.section(heading):
                formatter.write_dl([(name, line) for name, (_, line) in room.items()])
        _format_options(self, ctx, formatter)

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **_: Any
    ) -> int:
        """Runs a command line and returns its exit code."""
        name = prog_name or "holdfast"
        self._main_shell_completion({}, name)
        return self._run(list(sys.argv[1:] if args is None else args), name)

    def _run(self, words: list[str], name: str) -> int:
        return carry_out(self, words, name)


class Room(click.Group):
    """A command with commands of its own, which take the global options too."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _global_options()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Its commands, then the global options."""
        self.format_commands(ctx, formatter)
        _format_options(self, ctx, formatter)


def carry_out(command: click.Command, words: list[str], name: str) -> int:
    """Runs a command line; whatever goes wrong is told in one form. Returns the exit code."""
    settings = Settings(as_json="--json" in words)
    try:
        try:
            with command.make_context(name, words, obj=settings, terminal_width=_width()) as context:
                result = command.invoke(context)
            sys.stdout.flush()
            return result if isinstance(result, int) else 0
        except click.exceptions.Exit as ending:
            sys.stdout.flush()
            return ending.exit_code
    except click.exceptions.NoArgsIsHelpError as asked:
        click.echo(asked.format_message())
        return 0
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has seen enough: `| head` is not an error. Nothing may be flushed into the pipe any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except HoldfastError as error:
        settings.show.error(error)
        return error.exit_code
    except click.ClickException as error:
        settings.show.error(_ours(error))
        return error.exit_code
    except OSError as error:
        settings.show.error(_of_system(error))
        return 1
    except Exception as error:
        if settings.verbose:
            raise
        if isinstance(error, RuntimeError) and "home directory" in str(error):  # as pathlib says of ~nobody
            settings.show.error(UsageError("whose home a ~ means is not known", hint="write the path out, or set HOME"))
            return UsageError.exit_code
        if isinstance(error, UnicodeEncodeError):  # bytes of the line or of a variable that no text has
            wrong = ascii(error.object[error.start : error.end])
            settings.show.error(
                UsageError(f"what was given is not UTF-8: it has {wrong:.80}", hint="a path, a name or a value")
            )
            return UsageError.exit_code
        what = f"{type(error).__name__}: {error}"
        settings.show.error(HoldfastError(f"a fault of our own: {what}", hint="-v shows where; please report it"))
        return 1


class _Lazy(MutableMapping[str, click.Command]):
    """Names to commands; a command's module is imported when the command is looked at."""

    def __init__(self, modules: dict[str, str]) -> None:
        self._modules = modules

    def __getitem__(self, name: str) -> click.Command:
        module = importlib.import_module(f"holdfast.cli.{self._modules[name]}")
        found = getattr(module, f"{name}_command")
        assert isinstance(found, click.Command)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __setitem__(self, name: str, command: click.Command) -> None:
        raise NotImplementedError("commands are listed in holdfast/cli/__init__.py")

    def __delitem__(self, name: str) -> None:
        raise NotImplementedError("commands are listed in holdfast/cli/__init__.py")

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


def command(name: str, **kwargs: Any) -> Callable[[Callable[..., Any]], Command]:
    """Makes a function the command `name`; its docstring is the help. Bind it to ``<name>_command``."""
    return click.command(name, cls=Command, **kwargs)


def lone(name: str, **kwargs: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes a function a program of its own, which takes of the global options those about printing."""

    def made(function: Callable[..., Any]) -> click.Command:
        given = {"help_option_names": ["-h", "--help"]}
        program: click.Command = click.command(name, cls=click.Command, context_settings=given, **kwargs)(function)
        program.params += [param for param in _global_options() if param.name in _PRINTING]
        return program

    return made


def room(name: str, **kwargs: Any) -> Callable[[Callable[..., Any]], Room]:
    """Makes a function the command `name` that has commands of its own; bind it as with `command`."""
    return click.group(name, cls=Room, **kwargs)


_GLOBAL: Final = (
    # (parameter, flags, help)
    ("store", ("--store",), "PATH", "the store's directory [$HOLDFAST_STORE, else $XDG_DATA_HOME/holdfast]"),
    ("hub", ("--hub",), "URL", "the hub; repeat it for several [$HOLDFAST_HUB, else as given to init]"),
    ("agent", ("--agent",), "ID", "whose log: who writes, or who is read [$HOLDFAST_AGENT, else as given to init]"),
    ("token_file", ("--token-file",), "PATH", "the file that holds the hub's token [$HOLDFAST_TOKEN_FILE]"),
    ("config_file", ("--config",), "FILE", "a configuration file in place of the project's [$HOLDFAST_CONFIG]"),
    ("as_json", ("--json",), None, "print JSON, for programs; errors too"),
    ("no_color", ("--no-color",), None, "no colours [$NO_COLOR]"),
    ("quiet", ("-q", "--quiet"), None, "no messages, only data and errors"),
    ("verbose", ("-v", "--verbose"), None, "more about errors"),
)
_PRINTING: Final = ("as_json", "no_color", "quiet", "verbose")
_GLOBAL_NAMES: Final = {name for name, *_ in _GLOBAL}


def _global_options() -> list[click.Parameter]:
    return [
        click.Option(
            [*flags, name],
            help=text,
            metavar=metavar,
            is_flag=metavar is None,
            default=None if metavar else False,
            multiple=name == "hub",
            expose_value=False,
            callback=_remember,
        )
        for name, flags, metavar, text in _GLOBAL
    ]


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value and param.name:
        setattr(ctx.find_root().obj, param.name, value)


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from holdfast import __version__

        click.echo(f"holdfast {__version__}")
        ctx.exit()


def _format_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    own: list[tuple[str, str]] = []
    shared: list[tuple[str, str]] = []
    for param in command.get_params(ctx):
        row = param.get_help_record(ctx)
        if "--help" in param.opts and row is not None:
            row = (row[0], "show this")
        if row is not None and isinstance(param, click.Option):  # arguments stand in the first line
            (shared if param.name in _GLOBAL_NAMES else own).append(row)
    for heading, rows in (("Options", own), ("Global options", shared)):
        if rows:
            with formatter.section(heading):
                formatter.write_dl(rows)


def _width() -> int:
    """The width of help texts: the terminal's within reason. (Click asks shutil, which is 3 ms.)"""
    with contextlib.suppress(OSError, ValueError):
        columns = int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size(sys.stdout.fileno()).columns
        return max(min(columns, _WIDTH_MAX) - 2, 50)
    return 78


def _ours(error: click.ClickException) -> HoldfastError:
    """A mistake on the command line in our own form: what, then what to do."""
    what, _, hint = error.format_message().replace("a valid integer range", "a whole number").partition("\n")
    what, found, meant = what.partition(" Did you mean ")
    context = getattr(error, "ctx", None)
    if found:
        hint = f"did you mean {meant}"
    elif what.endswith(choose := ". Choose from:"):
        what, hint = what.removesuffix(choose), f"one of {hint}"
    elif not hint and context is not None:
        hint = f"{context.command_path} --help"
    made = UsageError(what[:1].lower() + what[1:].rstrip("."), hint=" ".join(hint.split()))
    return made


def _of_system(error: OSError) -> HoldfastError:
    where = f"{error.filename}: " if error.filename else ""
    return HoldfastError(f"{where}{error.strerror or error}")
