"""Figures drawn from bars, discs and rings: shapes whose measures are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from scipy import ndimage

from atypia.classifiers.rules.segmentation import MPP, SIDE

if TYPE_CHECKING:
    import numpy.typing as npt

    Depth: TypeAlias = npt.NDArray[np.float64]

HAEMATOXYLIN: Final = np.array([0.65, 0.70, 0.29])
EOSIN: Final = np.array([0.07, 0.99, 0.11])


def grid(side: int = SIDE, mpp: float = MPP) -> tuple[Depth, Depth]:
    """x and y of every pixel, µm from the middle."""
    axis = (np.arange(side) - (side - 1) / 2) * mpp
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x, y


class Canvas:
    """Draws chromatin; the whole is turned around the middle by `angle` (degrees)."""

    def __init__(self, angle: float = 0.0, side: int = SIDE, mpp: float = MPP) -> None:
        x, y = grid(side, mpp)
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        self.x, self.y = c * x + s * y, -s * x + c * y
        self.mpp = mpp
        self.depth = np.full((side, side), -np.inf)  # µm inside the chromatin

    def disc(self, x: float, y: float, radius: float) -> Canvas:
        return self._add(radius - np.hypot(self.x - x, self.y - y))

    def bar(self, x: float, y: float, length: float, width: float, tilt: float = 0.0) -> Canvas:
        """A bar around (x, y) whose long axis lies along x, turned by `tilt` degrees."""
        c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
        along = c * (self.x - x) + s * (self.y - y)
        across = -s * (self.x - x) + c * (self.y - y)
        return self._add(np.minimum(length / 2 - np.abs(along), width / 2 - np.abs(across)))

    def ring(self, radius: float, thickness: float) -> Canvas:
        return self._add(thickness / 2 - np.abs(np.hypot(self.x, self.y) - radius))

    def _add(self, depth: Depth) -> Canvas:
        self.depth = np.maximum(self.depth, depth)
        return self

    def field(
        self,
        *,
        strength: float = 1.2,
        cytoplasm: float = 0.1,
        eosin: float = 0.25,
        noise: float = 0.0,
        seed: int = 0,
    ) -> npt.NDArray[np.float32]:
        """RGB in 0..1 (S, S, 3) by Beer-Lambert's law, with the blur of a lens."""
        inside = np.clip(self.depth / self.mpp + 0.5, 0, 1)
        inside = ndimage.gaussian_filter(inside, 0.2 / self.mpp)
        amount = cytoplasm + (strength - cytoplasm) * inside
        density = amount[..., None] * HAEMATOXYLIN + eosin * EOSIN
        light = 10**-density
        if noise:
            light = light + np.random.default_rng(seed).normal(0, noise, light.shape)
        return np.clip(light, 0, 1).astype(np.float32)

    def patch(self, **options: float) -> npt.NDArray[np.uint8]:
        """The same as a patch (S, S, 3) uint8."""
        return np.round(255 * self.field(**options)).astype(np.uint8)  # type: ignore[arg-type]


def plate(angle: float = 0) -> Canvas:
    return Canvas(angle).bar(0, 0, 8, 2.6)


def clump(angle: float = 0) -> Canvas:
    return Canvas(angle).disc(0, 0, 3).disc(1.8, 1.2, 1.7).disc(-1.6, 1.5, 1.7).disc(0.3, -2, 1.7)


def ring(angle: float = 0) -> Canvas:
    return Canvas(angle).ring(2.6, 1.6)


def sisters(angle: float = 0, second: float = 6.0, apart: float = 7.0, tilt: float = 0) -> Canvas:
    """Two plates one above the other, the second one of another length, turned."""
    return Canvas(angle).bar(0, apart / 2, 6, 2).bar(0, -apart / 2, second, 2, tilt)


def unequal(angle: float = 0) -> Canvas:
    return Canvas(angle).bar(0, 3.4, 7, 2.4).bar(0, -3.4, 4, 1.9)


def bridge(angle: float = 0) -> Canvas:
    return sisters(angle).bar(0, 0, 0.9, 6)


def polar(angle: float = 0) -> Canvas:
    """A plate and two chromosomes that stayed away from it."""
    return plate(angle).disc(0.8, 3.2, 0.7).disc(-1.6, 3.4, 0.7)


def three_arms(angle: float = 0) -> Canvas:
    canvas = Canvas(angle)
    for arm in (90, 210, 330):
        c, s = np.cos(np.radians(arm)), np.sin(np.radians(arm))
        canvas.bar(3 * c, 3 * s, 6, 2, arm)
    return canvas


def three_sets(angle: float = 0) -> Canvas:
    canvas = Canvas(angle)
    for pole in (90, 210, 330):
        c, s = np.cos(np.radians(pole)), np.sin(np.radians(pole))
        canvas.bar(4.2 * c, 4.2 * s, 4.4, 2, pole + 90)
    return canvas


def scattered(angle: float = 0) -> Canvas:
    canvas = Canvas(angle).disc(-0.4, -0.3, 1.3)
    for x, y, r in ((2.4, 2, 1), (-2.9, -2, 0.9), (3, -1, 0.7), (-2, 2.6, 0.8), (1, -3.2, 1)):
        canvas.disc(x, y, r)
    return canvas


FIGURES: Final = {
    "plate": (plate, "nmf_metaphase"),
    "clump": (clump, "nmf_prometaphase"),
    "ring": (ring, "nmf_ring"),
    "sisters": (sisters, "nmf_anaphase_telophase"),
    "unequal": (unequal, "amf_bipolar"),
    "bridge": (bridge, "amf_segregation"),
    "polar": (polar, "amf_segregation"),
    "three arms": (three_arms, "amf_multipolar"),
    "three sets": (three_sets, "amf_multipolar"),
    "scattered": (scattered, "amf_other"),
}
