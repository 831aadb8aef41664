"""A page of HTML as a PDF of one sheet of A4, by WeasyPrint; the only module that imports it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any, Final

from atypia.core.errors import AtypiaError, MissingExtraError
from atypia.core.files import atomic_write

if TYPE_CHECKING:
    from pathlib import Path

EXTRA: Final = "pdf"
_SHEET_MM: Final = (210, 297)
_LARGER: Final = (1.0, 1.12, 1.25, 1.4, 1.6, 2.0)
"""Sheets that are tried, as multiples of A4's sides; a larger one is shrunk to A4."""


def check_pdf() -> None:
    """Check that PDF can be written, before any work; raises what :func:`write_pdf` does."""
    _weasyprint()


def write_pdf(path: Path, page: str) -> None:
    """Write a page that stands alone as a PDF of one sheet, atomically. Equal pages, equal bytes.

    What does not fit on a sheet of A4 is set on a larger one, which is shrunk. Nothing is fetched.

    Raises:
        MissingExtraError: WeasyPrint is not installed.
        AtypiaError: A library of the system is not there, or the page is four sheets long.
    """
    weasyprint = _weasyprint()
    log = logging.getLogger("weasyprint")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it warns of every rule that is for screens
    try:
        fetcher = weasyprint.urls.URLFetcher(allowed_protocols={"data"})
        html = weasyprint.HTML(string=page, url_fetcher=fetcher)
        for factor in _LARGER:
            size = " ".join(f"{side * factor:.2f}mm" for side in _SHEET_MM)
            sheet = weasyprint.CSS(string=f"@page {{ size: {size} !important }}")
            document = html.render(stylesheets=[sheet])
            if len(document.pages) == 1:
                break
        else:
            raise AtypiaError(f"{path}: expected a page of one sheet but it is far longer.")
        buffer = io.BytesIO()
        document.write_pdf(buffer, zoom=1 / factor)
    finally:
        log.setLevel(level)
    with atomic_write(path, "wb") as stream:
        stream.write(buffer.getvalue())


def _weasyprint() -> Any:
    try:
        # It names what is missing on the standard output, where results go.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import weasyprint
    except ModuleNotFoundError:
        raise MissingExtraError("weasyprint", EXTRA, "Writing PDF") from None
    except OSError as error:
        raise AtypiaError(
            f"writing PDF needs the library Pango, which this system lacks ({error}). Install it "
            "(Debian, Ubuntu: apt install libpangoft2-1.0-0; macOS: brew install pango), or print "
            "the HTML page to a file."
        ) from None
    return weasyprint
