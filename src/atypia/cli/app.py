"""The command ``atypia`` itself: consoles, and where errors end.

A person reads a message; the exit code is 1 for a failure of the work, 2 for bad input.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from atypia._version import __version__
from atypia.core.errors import AtypiaError, InputError, MissingExtraError
from atypia.core.found_files import require_utf8

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atypia.core.errors import Problem

app = typer.Typer(
    help="Subtype mitotic figures in H&E histology. Research use; not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out_console = Console()
err_console = Console(stderr=True)

_STOPPED = "Stopped. A training goes on with --resume."
_INTERRUPTED, _TERMINATED = 130, 143
"""Exit codes after SIGINT and SIGTERM, as shells have them."""
MOST_LISTED = 100
"""Problems that are printed; a file may hold a million."""


def main() -> None:
    """Entry point of the command ``atypia``."""
    codes: list[int] = []

    def terminate(*_: object) -> None:
        codes.append(_TERMINATED)
        raise KeyboardInterrupt  # what has to be finished and noted is, as after Ctrl-C

    signal.signal(signal.SIGTERM, terminate)
    try:
        require_utf8(sys.argv[1:])
        # Typer gives the code of an Exit back, 130 after Ctrl-C, and ends with it in no other way.
        code = app(standalone_mode=False)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            sys.exit(code)
    except AtypiaError as error:
        _print_error(error)
        sys.exit(error.exit_code)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        err_console.print(_STOPPED)
        sys.exit(codes[0] if codes else _INTERRUPTED)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError):
            from atypia.classifiers.installation import extra_of

            if (extra := extra_of(error.name)) is not None:
                _print_error(MissingExtraError(error.name or "", extra, "This command"))
                sys.exit(2)
        if hasattr(error, "format_message"):  # of the option parser
            err_console.print(f"[red]Error:[/red] {escape(error.format_message())}")
            sys.exit(2)
        if os.environ.get("ATYPIA_DEBUG"):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        err_console.print(
            f"[red]Error:[/red] {escape(type(error).__name__)}: {escape(str(error))} "
            f"({Path(where.filename).name}:{where.lineno}). This is a fault of Atypia or of a "
            "library; ATYPIA_DEBUG=1 shows where. Please report it.",
            soft_wrap=True,
        )
        sys.exit(1)


def _print_error(error: AtypiaError) -> None:
    if isinstance(error, InputError) and len(error.problems) > 1:
        err_console.print(f"[red]Error:[/red] {len(error.problems):,} problems")
        list_problems(error.problems)
    else:
        err_console.print(f"[red]Error:[/red] {escape(str(error))}", soft_wrap=True)


def list_problems(problems: Sequence[Problem], rest: str = "") -> None:
    """List the first hundred problems; `rest` names where all of them are."""
    for problem in problems[:MOST_LISTED]:
        err_console.print(f"  • {escape(str(problem))}", soft_wrap=True)
    if (more := len(problems) - MOST_LISTED) > 0:
        err_console.print(f"  … and {more:,} more{rest and f' ({rest})'}", soft_wrap=True)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"atypia {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    logger = logging.getLogger("atypia")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(_log_handler())


def _log_handler() -> logging.Handler:
    if not err_console.is_terminal:  # one line per event, for log files
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        return handler
    from rich.logging import RichHandler

    return RichHandler(console=err_console, show_path=False, show_level=False)


def command_line() -> str:
    """Return what the person typed, for the record of a run."""
    return shlex.join(["atypia", *sys.argv[1:]])
