"""The app with a model that needs no torch, in a process of its own.

python web_server.py SOURCE REVIEWS CACHE [NAME=VALUE ...]
"""

from __future__ import annotations

import logging
import os
import resource
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

import numpy as np
from fake_server import ABOUT, FakeModel

from atypia.core.errors import AtypiaError
from atypia.server.guard import ServerLimits
from atypia.server.listener import answer, bound, choose_access
from atypia.server.service import Service
from atypia.web import site as site_module
from atypia.web.app_routes import mount
from atypia.web.explanations import Explanations
from atypia.web.site import Show, open_site
from atypia.web.source import open_source

HOLD: list[str] = []
"""A file; while it is there, heat maps are not finished."""
METHODS = {"gradcam": "Grad-CAM", "occlusion": "Occlusion"}


def embed(patches: Any, _mpp: float) -> np.ndarray:
    return patches.reshape(len(patches), -1, 3).mean(1).astype(np.float32) - 128


def read(patch: Any, _mpp: float) -> dict[str, Any]:
    side = patch.shape[0]
    box = [[side * a, side * b] for a, b in ((0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6))]
    line = {"ends": box[::2], "text": "<b>3.1 µm</b>"}
    return {
        "text": "Metaphase: one plate. <img src=x onerror=1>",
        "measures": ["length 3.1 µm"],
        "contours": [box],
        "lines": [line],
    }


def heat(patch: Any, _mpp: float, target: int, method: str) -> np.ndarray:
    while HOLD and Path(HOLD[0]).exists():
        time.sleep(0.01)
    if method == "occlusion":
        raise AtypiaError("<b>No</b> map of this network.")
    return np.full(patch.shape[:2], target / 8, np.float32)


def main(source: str, reviews: str, cache: str, *options: str) -> None:
    logging.basicConfig(level=logging.INFO)
    os.environ["XDG_CACHE_HOME"] = cache
    named = dict(option.split("=", 1) for option in options)
    HOLD.extend(named.get(key, "") for key in ("hold",) if key in named)
    if "files" in named:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(named["files"]), int(named["files"])))
    paths = {k: Path(named[k]) for k in ("results", "against", "cohort") if k in named}
    show = Show(Path(source), Path(reviews), blind="blind" in named, **paths)  # type: ignore[arg-type]
    if "plain" not in named:
        site_module.embedder = lambda _: (embed, "k" * 64)
        site_module.find_explanations = lambda _: Explanations(read, heat, METHODS)
    with ExitStack() as stack:
        listener = stack.enter_context(bound("127.0.0.1", int(named.get("port", 0))))
        shown = stack.enter_context(
            open_source(show.source, cohort=show.cohort, results=show.results)
        )
        model = FakeModel()
        limits = ServerLimits(**{k: int(named[k]) for k in ("body_bytes",) if k in named})
        service = stack.enter_context(Service(model, ABOUT, {}, limits))
        site = stack.enter_context(open_site(show, shown, model))
        access = choose_access(listener, "127.0.0.1")
        answer(service, listener, access, lambda app: mount(app, site, limits))


if __name__ == "__main__":
    main(*sys.argv[1:])
