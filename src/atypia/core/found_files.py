"""What a folder of inputs holds: one rule of what is left out, wherever folders are listed."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from atypia.core.errors import InputError, Problem, first_few

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger("atypia")

_TOOL_MADE: Final = frozenset(
    {"@eadir", "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "#recycle", "$recycle.bin"}
    | {"system volume information", "lost+found", "@recycle", "@tmp", "#snapshot", "__pycache__"}
)


def is_tool_made(name: str) -> bool:
    """Whether a file or folder is hidden, or has a name that systems and tools give to theirs."""
    return name.startswith((".", "~$")) or name.casefold() in _TOOL_MADE


def entries_in(folder: Path) -> list[Path]:
    """Files and folders directly in a folder, sorted, without those that tools make.

    Raises:
        InputError: The folder cannot be read, or a name is not UTF-8.
    """
    try:
        entries = [path for path in folder.iterdir() if not is_tool_made(path.name)]
    except OSError as error:
        _unreadable(error)
    require_utf8(path.name for path in entries)
    return sorted(entries)


def files_below(folder: Path) -> list[Path]:
    """List the files at any depth, sorted. Links to folders are entered, but never in a circle.

    Hidden files and those that tools make are left out, counted and logged, and so are links that
    lead back to a folder above them.

    Raises:
        InputError: A folder cannot be read; or lists links to nothing, or names that are not UTF-8.
    """
    files: list[Path] = []
    made: list[str] = []
    circles: list[str] = []
    above: dict[str, list[Path]] = {str(folder): []}
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_unreadable):
        here = Path(place)
        chain = [*above.pop(place), here.resolve()]
        made += [str(here / name) for name in (*folders, *names) if is_tool_made(name)]
        files += [here / name for name in names if not is_tool_made(name)]
        entered = []
        for name in folders:
            target = (here / name).resolve()
            if is_tool_made(name):
                continue
            if any(real.is_relative_to(target) for real in chain):
                circles.append(str(here / name))
                continue
            above[os.path.join(place, name)] = chain  # noqa: PTH118 the walk's own key
            entered.append(name)
        folders[:] = entered
    require_utf8(files)
    if lost := [path for path in files if not path.exists()]:
        what = "expected a file or a folder but it is a link to nothing. Mend or remove it."
        raise InputError([Problem(what, str(path)) for path in lost])
    for left, what in (
        (made, "hidden, or made by the system or a tool"),
        (circles, "links to a folder above them"),
    ):
        if left:
            log.warning("%s: %d left out, %s: %s", folder, len(left), what, first_few(sorted(left)))
    return sorted(files)


def _unreadable(error: OSError) -> NoReturn:
    what = f"expected a folder that can be read but it cannot: {error.strerror}."
    raise InputError(Problem(what, printable(error.filename))) from None


def printable(name: str | Path) -> str:
    r"""Text that every terminal and file takes: bytes that are not UTF-8 are written ``\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def require_utf8(paths: Iterable[str | Path]) -> None:
    """Refuse paths whose bytes are not UTF-8: no table or JSON file can hold them.

    Raises:
        InputError: Lists all of them.
    """
    wrong = [name for path in paths if (name := printable(path)) != str(path)]
    if wrong:
        what = "expected a name in UTF-8. Rename it, as older systems wrote it in another encoding."
        raise InputError([Problem(what, name) for name in wrong])


def refuse_special(path: Path) -> None:
    """Refuse a FIFO, a socket or a device, which could keep a reader waiting for ever.

    Raises:
        InputError: It is one.
    """
    with suppress(OSError):  # whoever opens it has words for what is missing
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            what = "expected a file but got a FIFO, a socket or a device. Save it as a file first."
            raise InputError(Problem(what, str(path)))
