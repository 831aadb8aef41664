"""The search for the hot-spot of a slide: which one is wanted, on what tissue, against chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from atypia.biomarker.hotspot import AREA_MM2, Hotspot, Shape, TissueWindows, find_hotspot
from atypia.biomarker.hotspot_chance import Chance, scattered_places, shuffled_calls

if TYPE_CHECKING:
    from atypia.evaluation.metrics import BoolArray, FloatArray
    from atypia.slides.tissue import Tissue


@dataclass(frozen=True)
class HotspotChoice:
    """Which hot-spot is looked for."""

    area_mm2: float = AREA_MM2
    shape: Shape = "circle"
    of: Literal["all", "atypical"] = "all"
    """Most mitotic figures of all kinds, or most that are called atypical.

    A hot-spot that atypical figures have chosen has a density but no share of them."""


class FoundHotspot(NamedTuple):
    """What a search has found."""

    hotspot: Hotspot | None
    """None where no figure lies on the tissue."""
    chance: Chance | None
    """How full it would be by chance alone; None where that is not known."""
    tissue_mm2: float | None
    """Area of tissue in it; None where the tissue is not known."""


def search_hotspot(
    points_um: FloatArray,
    called: BoolArray,
    choice: HotspotChoice,
    tissue: Tissue | None,
    ground: Tissue | None,
) -> FoundHotspot | None:
    """Search the hot-spot of figures at points (N, 2), (N,) of them called atypical.

    Where nothing is called atypical, the place of most figures stands in. `ground` is where figures
    can lie: the tissue, or the part of it that is in the annotated region.

    Returns:
        None where no hot-spot fits on the tissue.
    """
    area, shape = choice.area_mm2, choice.shape
    windows = chance = None
    if tissue is not None and ground is not None:
        windows = TissueWindows(tissue, area, shape)
        if ground.area_mm2 < area or not windows.any:
            return None
    wanted = called | (choice.of == "all")
    hotspot = find_hotspot(points_um[wanted if wanted.any() else ~wanted], area, shape, windows)
    if hotspot is None:
        return FoundHotspot(None, None, None)
    if choice.of == "atypical":
        chance = shuffled_calls(points_um, called, area, shape, windows)
    elif ground is not None:
        chance = scattered_places(len(points_um), ground, area, shape, windows)
    share = None if windows is None else windows.share(np.array([hotspot.centre_um]))[0]
    return FoundHotspot(hotspot, chance, None if share is None else area * float(share))
