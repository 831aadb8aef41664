"""``atypia serve``: answer programs over HTTP, and show figures in the browser beside it.

Leaves the labels of reviewers, if the app is shown, in one SQLite file.
"""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from atypia.classifiers.bundle import HEADER
from atypia.core.choices import BALANCED, BEST, RELEASED
from atypia.core.errors import InputError
from atypia.server.guard import ServerLimits, usual_requests
from atypia.server.listener import answer, bound, check_installed, choose_access, is_private
from atypia.server.registered_slides import register_slides
from atypia.server.service import Service
from atypia.server.shared_model import load_described
from atypia.web.app_routes import mount
from atypia.web.site import open_site
from atypia.web.source import kind_of, open_source

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from atypia.web.site import Show

log = logging.getLogger("atypia")


def serve(
    show: Show | None = None,
    model: Path | str | None = None,
    *,
    quality: str = BEST,
    operating_point: str = BALANCED,
    backend: str = "auto",
    device: str = "auto",
    slides: Path | None = None,
    register: Iterable[tuple[str, Path]] = (),
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_hosts: Iterable[str] = (),
    token_file: Path | None = None,
    limits: ServerLimits | None = None,
) -> None:
    """Answer until the process gets SIGINT or SIGTERM.

    Args:
        show: What the app shows; None: the API alone.
        model: With `quality` to `device` as for
            :func:`atypia.classifiers.loading.load_ensemble`. None is that of the run that is
            shown, else ``released``.
        slides: A folder of slides that clients may ask about.
        register: Ids and further slides.
        host: Name or address to listen on; with the app one of this machine alone.
        port: 0 is any that is free.
        allow_hosts: Further names by which clients may address the server.
        token_file: Holds what clients must send; so does ``ATYPIA_TOKEN``. Not with the app.

    Raises:
        InputError: Lists what is wrong with the slides, the source or the options.
        MissingExtraError: The extra ``serve`` is not installed.
    """
    check_installed()
    limits = limits or ServerLimits(requests=usual_requests(beside_app=show is not None))
    registered = register_slides(slides, register)
    token = _read_token(token_file)
    if show is not None:
        if token is not None:
            raise InputError(
                "A browser cannot send the token that --token-file or ATYPIA_TOKEN gives. Start "
                "the app without it: it answers this machine alone."
            )
        model = model or _model_of(show.source)
    # Clients are heard once the model is loaded; a port in use is found before.
    with ExitStack() as stack:
        listener = stack.enter_context(bound(host, port))
        if show is not None and not is_private(listener):
            raise InputError(
                f"--host {host}: the app has no accounts and is shown on this machine alone. Leave "
                "--host out; from elsewhere, forward the port: ssh -L 8000:localhost:8000 MACHINE"
            )
        access = choose_access(listener, host, allow_hosts, token)
        shown = None
        if show is not None:
            source = open_source(
                show.source,
                cohort=show.cohort,
                results=show.results,
                mpp=show.mpp,
                count_all=show.count_all,
            )
            shown = stack.enter_context(source)
        loaded, about = load_described(model or RELEASED, quality, backend, device, operating_point)
        service = stack.enter_context(Service(loaded, about, registered, limits))
        extend = None
        if show is not None and shown is not None:
            site = stack.enter_context(open_site(show, shown, loaded))
            extend = partial(mount, site=site, limits=limits)
            log.info("labels of reviewers are saved in %s", show.reviews)
        answer(service, listener, access, extend)


def _read_token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("ATYPIA_TOKEN")
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {file}: expected a text file ({error}).") from None


def _model_of(source: Path) -> Path | str:
    """Choose the model of a run, if it has one; else the one in the package."""
    own = kind_of(source) == "run" and (source / "model" / HEADER).is_file()
    return source if own else RELEASED
