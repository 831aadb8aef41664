"""The HTTP API with the app beside it, on this machine alone."""

from __future__ import annotations

import ipaddress
import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

from atypia.classifiers.bundle import BEST, HEADER, RELEASED
from atypia.core.errors import InputError
from atypia.server.limits import ServerLimits
from atypia.server.start_server import answer, bound, check_installed, choose_access
from atypia.web.site import open_site
from atypia.web.source import kind_of, open_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from atypia.web.site import Show

log = logging.getLogger("atypia")


def serve_app(
    show: Show,
    model: Path | str | None = None,
    *,
    quality: str = BEST,
    backend: str = "auto",
    device: str = "auto",
    slides: Mapping[str, Path] | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_hosts: Iterable[str] = (),
    limits: ServerLimits | None = None,
) -> None:
    """Answer browsers and programs until the process is told to stop (SIGINT, SIGTERM).

    Args:
        show: What the app shows.
        model: Answers what is dropped; None is the run's own, or the one in the package.
        quality: As in :func:`atypia.server.serve`, and so are all that follow.
        backend: Likewise.
        device: Likewise.
        slides: Likewise.
        host: An address of this machine alone.
        port: 0 is any that is free.
        allow_hosts: Likewise.
        limits: Likewise.

    Raises:
        InputError: Lists what is wrong with the source or the options.
        MissingExtraError: The extra ``serve`` is not installed.
    """
    check_installed()
    kind = kind_of(show.source)
    if model is None:
        own = kind == "run" and (show.source / "model" / HEADER).is_file()
        model = show.source if own else RELEASED
    with ExitStack() as stack:
        listener = stack.enter_context(bound(host, port))
        if not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
            raise InputError(
                f"--host {host}: the app has no accounts and is shown on this machine alone. Leave "
                "--host out; from elsewhere, forward the port: ssh -L 8000:localhost:8000 MACHINE"
            )
        access = choose_access(listener, host, allow_hosts)
        shown = stack.enter_context(
            open_source(show.source, cohort=show.cohort, results=show.results, mpp=show.mpp)
        )
        # Only now, with torch: errors above need not wait for it.
        from atypia.server.about import load
        from atypia.server.service import Service
        from atypia.web.app_routes import mount

        limits = limits or ServerLimits()
        loaded, about = load(model, quality, backend, device)
        service = stack.enter_context(Service(loaded, about, slides, limits))
        site = stack.enter_context(open_site(show, shown, loaded))
        log.info("labels of reviewers are saved in %s", show.reviews)
        answer(service, listener, access, lambda app: mount(app, site, limits))
