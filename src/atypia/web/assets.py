"""What the browser loads: the page, its modules and style sheets, read once."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

KINDS: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
PAGE: Final = "index.html"

HEADERS: Final = {
    # No script, style, picture or connection from elsewhere, and none inside the page. Pictures
    # of files that were dropped, and of tiles, are blobs of the page's own.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
"""Of everything that the app answers."""


def read_assets() -> dict[str, tuple[bytes, str]]:
    """Read every file of ``static``: path below it to content and media type."""
    folder = Path(str(resources.files("atypia.web"))) / "static"
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), KINDS[path.suffix])
        for path in sorted(folder.rglob("*"))
        if path.suffix in KINDS
    }
