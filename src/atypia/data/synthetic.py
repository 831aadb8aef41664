"""The synthetic cohort: procedural H&E-like patches of all eight subtypes.

It needs no download and holds no patient: ``atypia demo`` and the tests run on it. What it makes
is dedicated to the public domain (CC0 1.0).

A patch is drawn as a histologist would explain it. Chromatin is a union of discs (in µm) laid out
by the definitions of Donovan et al. (Veterinary Pathology 58(2), 2021). It lies in a cell among
neighbours, whose nuclei distract. Amounts of haematoxylin and eosin become light by Beer-Lambert's
law with stain vectors around those of Ruifrok & Johnston (Anal Quant Cytol Histol 23, 2001), and a
scanner adds its blur, sharpening, colour response, noise and JPEG compression. Patients differ in
stain, cells, number of figures and class mix; two raters err independently, mostly between
subtypes that look alike.

It is learnable but not trivial. ``atypia demo`` (seed 0: three EfficientNet-Lite0, 8 epochs, 180
test patches of 7 patients, label ``expert1``) reaches a mean AUC of 0.925 (0.886-0.978) and a
balanced accuracy of 0.710 (0.611-0.859); the second rater reaches 0.672 (0.579-0.852).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from PIL import Image
from scipy import fft, ndimage

from atypia.core.errors import InputError, Problem
from atypia.core.files import building_folder
from atypia.core.labels import N_ATYPICAL, N_SUBTYPES, SUBTYPES, subtype_index
from atypia.data.cohort import Cohort

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.random import Generator
    from numpy.typing import NDArray

    Array = NDArray[np.floating]


@dataclass(frozen=True)
class Scanner:
    """How one scanner, and the laboratory that stains for it, turns tissue into RGB."""

    name: str
    domain: str
    haematoxylin: tuple[float, float, float]
    """Optical density per unit of stain in red, green and blue."""
    eosin: tuple[float, float, float]
    blur: float
    """Standard deviation of the optics' point spread, µm."""
    sharpening: float
    gamma: float
    white: tuple[float, float, float]
    """RGB of empty glass, 0 to 1."""
    noise: float
    """Standard deviation of the sensor's noise, 0 to 1."""
    jpeg_quality: int


SCANNERS: Final = (
    Scanner("S1", "SYN-A", (0.60, 0.74, 0.32), (0.10, 0.92, 0.38), 0.16, 0.5, 1.0,
            (0.97, 0.95, 0.97), 0.012, 88),
    Scanner("S2", "SYN-A", (0.66, 0.70, 0.26), (0.14, 0.91, 0.27), 0.24, 0.2, 0.92,
            (0.96, 0.94, 0.99), 0.018, 80),
    Scanner("S3", "SYN-B", (0.54, 0.74, 0.42), (0.11, 0.85, 0.54), 0.20, 0.9, 1.08,
            (0.99, 0.96, 0.93), 0.015, 84),
)  # fmt: skip


@dataclass(frozen=True)
class Patient:
    """What the patches of one patient have in common."""

    scanner: Scanner
    haematoxylin: float
    """Strength of the stain, about 1."""
    eosin: float
    basophilia: float
    """Haematoxylin in the cytoplasm."""
    spacing: float
    """Between neighbouring cells, µm."""
    nucleus: float
    """Radius of an interphase nucleus, µm."""
    vesicular: float
    """0: dense nuclei, 1: pale ones with a rim and nucleoli."""
    clefts: float
    """How much empty space there is between cells, 0 to 1."""
    scale: float
    """Size of the mitotic figures, about 1."""

    @classmethod
    def draw(cls, scanner: Scanner, rng: Generator) -> Patient:
        """Draw a patient of a scanner."""
        return cls(
            scanner=scanner,
            haematoxylin=rng.uniform(0.8, 1.2),
            eosin=rng.uniform(0.7, 1.3),
            basophilia=rng.uniform(0.04, 0.25),
            spacing=rng.uniform(8, 12),
            nucleus=rng.uniform(2.8, 4.0),
            vesicular=rng.uniform(0, 1),
            clefts=rng.uniform(0, 1),
            scale=rng.uniform(0.85, 1.15),
        )


# Chromatin is (n, 3) discs, x, y and radius in µm around the centre, the spindle's axis along y.


def _arc(rng: Generator, length: float, thickness: float, bend: float = 0.0) -> Array:
    """Lay a knobbly plate along x, its ends `bend` µm higher than its middle."""
    n = max(4, round(3 * length / thickness))
    t = np.linspace(-1, 1, n)
    x = t * (length - thickness) / 2
    y = bend * t**2
    r = thickness / 2 * rng.uniform(0.75, 1.15, n)
    spread = 0.12 * thickness
    return np.stack([x + rng.normal(0, spread, n), y + rng.normal(0, spread, n), r], 1)


def _dots(rng: Generator, n: int, low: float, high: float, size: float = 0.55) -> Array:
    """Fragments of radius about `size` at a distance of `low` to `high` µm from the centre."""
    angle, distance = rng.uniform(0, 2 * np.pi, n), rng.uniform(low, high, n)
    r = size * rng.uniform(0.7, 1.3, n)
    return np.stack([distance * np.cos(angle), distance * np.sin(angle), r], 1)


def _line(start: tuple[float, float], end: tuple[float, float], radius: float) -> Array:
    n = max(2, int(np.hypot(end[0] - start[0], end[1] - start[1]) / radius))
    points = np.linspace(start, end, n)
    return np.hstack([points, np.full((n, 1), radius)])


def _moved(discs: Array, x: float = 0.0, y: float = 0.0, angle: float = 0.0) -> Array:
    """Discs turned around the centre, then moved."""
    c, s = np.cos(angle), np.sin(angle)
    turned = discs[:, :2] @ np.array([[c, s], [-s, c]]) + (x, y)
    return np.hstack([turned, discs[:, 2:]])


def _pair(rng: Generator, small: float, gap: float) -> Array:
    """Two sets `gap` µm apart, concave to their poles; `small` is the size of one to the other."""
    length, thickness = rng.uniform(5.5, 7.5), rng.uniform(1.7, 2.4)
    bend = rng.uniform(0, 1.1)
    upper = _arc(rng, length, thickness, bend)
    lower = _arc(rng, length * small, thickness * small**0.4, bend * small)
    tilt = rng.normal(0, 0.1)
    return np.vstack(
        [_moved(upper, y=gap / 2, angle=tilt), _moved(lower * (1, -1, 1), y=-gap / 2, angle=-tilt)]
    )


def _bipolar(rng: Generator) -> Array:
    return _pair(rng, small=rng.uniform(0.25, 0.6), gap=rng.uniform(4.0, 9.0))


def _multipolar(rng: Generator) -> Array:
    poles = 3 if rng.random() < 0.7 else 4
    angles = 2 * np.pi * np.arange(poles) / poles + rng.normal(0, 0.18, poles)
    if rng.random() < 0.7:  # one plate with arms between the poles: Y, X
        lengths, thickness = rng.uniform(4.0, 6.0, poles), rng.uniform(1.5, 2.2)
        arms = [
            _moved(_moved(_arc(rng, length, thickness), x=length / 2 - 0.3), angle=angle)
            for length, angle in zip(lengths, angles, strict=True)
        ]
    else:  # a set of chromosomes at each pole
        distance = rng.uniform(3.4, 4.8)
        arms = [
            _moved(_moved(_arc(rng, rng.uniform(3.2, 4.6), 1.8, 0.6), y=distance), angle=angle)
            for angle in angles
        ]
    return np.vstack(arms)


def _segregation(rng: Generator) -> Array:
    kind = rng.choice(["bridge", "lagging", "polar"])
    if kind == "polar":  # a plate whose late chromosomes stayed near the poles
        plate = _metaphase(rng)
        n = rng.integers(2, 6)
        side = rng.choice([-1, 1], n)
        x, y = rng.uniform(-2.5, 2.5, n), side * rng.uniform(2.8, 5.0, n)
        return np.vstack([plate, np.stack([x, y, rng.uniform(0.4, 0.8, n)], 1)])
    gap = rng.uniform(4.5, 8.0)
    pair = _pair(rng, small=rng.uniform(0.85, 1.0), gap=gap)
    if kind == "bridge":
        n = rng.integers(1, 4)
        between = [
            _line((x, gap / 2), (x + rng.normal(0, 0.5), -gap / 2), rng.uniform(0.3, 0.5))
            for x in rng.uniform(-2.2, 2.2, n)
        ]
    else:
        n = rng.integers(2, 5)
        x, y = rng.uniform(-2.2, 2.2, n), rng.uniform(-0.22, 0.22, n) * gap
        between = [np.stack([x, y, rng.uniform(0.45, 0.8, n)], 1)]
    return np.vstack([pair, *between])


def _other(rng: Generator) -> Array:
    kind = rng.choice(["scattered", "broken", "shattered ring"])
    if kind == "scattered":
        return _dots(rng, int(rng.integers(14, 32)), 0.3, rng.uniform(3.5, 5.5), 0.6)
    if kind == "broken":  # clumps of any size beside each other
        clumps = [
            _moved(_clump(rng, rng.uniform(0.9, 1.9)), *rng.normal(0, 2.6, 2))
            for _ in range(rng.integers(3, 5))
        ]
        return np.vstack([*clumps, _dots(rng, int(rng.integers(3, 9)), 2, 5.5)])
    sector = rng.uniform(0.55, 0.75)
    angle = np.sort(rng.uniform(0, 2 * np.pi * sector, 9))
    distance = rng.uniform(3.2, 4.5) * rng.uniform(0.85, 1.15, 9)
    radius = rng.uniform(0.6, 1.2, 9)
    chain = np.stack([distance * np.cos(angle), distance * np.sin(angle), radius], 1)
    return np.vstack([chain, _dots(rng, int(rng.integers(3, 8)), 1, 5)])


def _clump(rng: Generator, size: float) -> Array:
    n = 12
    place = rng.normal(0, 0.5 * size, (n, 2))
    return np.hstack([place, size * rng.uniform(0.35, 0.6, (n, 1))])


def _ana_telophase(rng: Generator) -> Array:
    return _pair(rng, small=rng.uniform(0.85, 1.0), gap=rng.uniform(4.0, 10.0))


def _metaphase(rng: Generator) -> Array:
    return _arc(rng, rng.uniform(6.5, 9.5), rng.uniform(2.0, 3.2), rng.normal(0, 0.5))


def _prometaphase(rng: Generator) -> Array:
    n = int(rng.integers(22, 34))
    angle, distance = rng.uniform(0, 2 * np.pi, n), 2.7 * np.sqrt(rng.uniform(0, 1, n))
    knobs = np.stack([distance * np.cos(angle), distance * np.sin(angle)], 1)
    knobs *= (rng.uniform(1.0, 1.35), rng.uniform(0.75, 1.0))
    discs = np.hstack([knobs, rng.uniform(0.5, 0.95, (n, 1))])
    if rng.random() < 0.3:  # not all chromosomes have come to the plate yet
        discs = np.vstack([discs, _dots(rng, int(rng.integers(1, 3)), 3.4, 4.4, 0.4)])
    return discs


def _ring(rng: Generator) -> Array:
    n = 20
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    distance = rng.uniform(2.4, 3.2) * rng.uniform(0.9, 1.1, n)
    squeeze = rng.uniform(0.85, 1.0)
    radius = rng.uniform(0.8, 1.15) * rng.uniform(0.75, 1.15, n)
    return np.stack([distance * np.cos(angle), squeeze * distance * np.sin(angle), radius], 1)


_DRAW: Final[dict[str, Callable[[Generator], Array]]] = dict(
    zip(
        SUBTYPES,
        (
            _bipolar, _multipolar, _segregation, _other,
            _ana_telophase, _metaphase, _prometaphase, _ring,
        ),
        strict=True,
    )
)  # fmt: skip


def draw_chromatin(subtype: str, rng: Generator) -> Array:
    """Lay out a figure's chromatin: (n, 3) discs, x, y and radius in µm around the centre."""
    discs = _DRAW[subtype](rng)
    return _moved(discs, angle=rng.uniform(0, 2 * np.pi))


def _axis(size_px: int, mpp: float) -> Array:
    """Place of each pixel's centre along a side, µm from the middle of the patch: (S,)."""
    return ((np.arange(size_px) - (size_px - 1) / 2) * mpp).astype(np.float32)


def chromatin_depth(discs: Array, size_px: int, mpp: float) -> Array:
    """Distance inside the union of discs, negative outside: (size_px, size_px), µm."""
    axis = _axis(size_px, mpp)
    discs = discs.astype(np.float32)
    square_x = (axis[None, :] - discs[:, :1]) ** 2  # (n, S)
    square_y = (axis[None, :] - discs[:, 1:2]) ** 2
    distance = np.sqrt(square_y[:, :, None] + square_x[:, None, :])  # (n, S, S)
    return np.asarray((discs[:, 2, None, None] - distance).max(0))


def _texture(rng: Generator, size_px: int, mpp: float, low: float, high: float) -> Array:
    """Gaussian noise with structures of `low` to `high` µm, mean 0 and variance 1: (S, S)."""
    fy, fx = np.fft.fftfreq(size_px, mpp), np.fft.rfftfreq(size_px, mpp)

    def passed(length: float) -> Array:
        """Give what a Gaussian filter of this length leaves of each frequency."""
        return np.outer(np.exp(-((fy * length) ** 2)), np.exp(-((fx * length) ** 2)))

    real, imaginary = rng.standard_normal((2, len(fy), len(fx)), dtype=np.float32)
    band = (passed(low) * (1 - passed(high))).astype(np.float32)
    noise = fft.irfft2((real + 1j * imaginary) * band, s=(size_px, size_px))
    return np.asarray(noise / noise.std())


def _soft(depth: Array, softness: float) -> Array:
    """1 deep inside, 0 far outside, with an edge of `softness` µm."""
    return np.asarray(1 / (1 + np.exp(-np.clip(depth / softness, -30, 30))))


def _neighbours(cell: Array, patient: Patient, rng: Generator, size_px: int, mpp: float) -> Array:
    """Depths inside the nuclei around the mitotic cell, (n, S, S); `cell` is that in it; µm."""
    half, spacing, axis = size_px * mpp / 2, patient.spacing, _axis(size_px, mpp)
    # A shaken hexagonal grid with holes.
    steps = np.arange(-int(half / spacing) - 2, int(half / spacing) + 3)
    i, j = (grid.ravel() for grid in np.meshgrid(steps, steps))
    centres = spacing * np.stack([i + 0.5 * (j % 2), 0.87 * j], 1).astype(np.float32)
    centres += spacing * (rng.uniform(-0.25, 0.25, centres.shape) + rng.uniform(-0.5, 0.5, 2))
    centres = centres[(np.abs(centres) < half + patient.nucleus).all(1)]
    n = len(centres)

    dx = axis[None, None, :] - centres[:, 0, None, None]
    dy = axis[None, :, None] - centres[:, 1, None, None]
    turn, stretch, size = (
        rng.uniform(low, high, (n, 1, 1)).astype(np.float32)
        for low, high in ((0, np.pi), (1.0, 1.5), (0.75, 1.15))
    )
    u = (dx * np.cos(turn) + dy * np.sin(turn)) / stretch
    v = (dy * np.cos(turn) - dx * np.sin(turn)) * np.sqrt(stretch)
    radius = patient.nucleus * size
    depths = radius - np.sqrt(u**2 + v**2)
    # Along the line between two centres both depths add up to radii less distance: the largest
    # sum is how far apart the nucleus and the mitotic cell are.
    apart = (depths + cell).max((1, 2)) < radius[:, 0, 0] - 0.5
    return np.asarray(depths[apart & (rng.random(n) < 0.85)])


def _tissue(
    cell: Array, patient: Patient, rng: Generator, size_px: int, mpp: float
) -> tuple[Array, Array]:
    """Haematoxylin and eosin (S, S) of all but the chromatin; `cell` as of :func:`_neighbours`."""

    def texture(low: float, high: float) -> Array:
        return _texture(rng, size_px, mpp, low, high)

    coarse, fine = texture(3, 12), texture(0.5, 2)
    eosin = 0.42 + 0.05 * coarse + 0.05 * fine
    haematoxylin = patient.basophilia * (1 + 0.25 * coarse + 0.25 * fine)
    solid = _soft(cell + 0.3, 0.3)

    depths = _neighbours(cell, patient, rng, size_px, mpp)
    if n := len(depths):
        owner = depths.argmax(0)
        depth = depths.max(0) + 0.3 * texture(2, 6)
        inside = _soft(depth, 0.15)
        rim = np.exp(-(((depth - 0.3) / 0.3) ** 2))
        # Vesicular nuclei are pale with clumps and nucleoli; lymphocytes and the like are dense.
        pale = patient.vesicular * (rng.random(n) < 0.85)[owner]
        clumps = _soft(texture(1, 4) - 0.9, 0.25)
        nucleoli = _soft(texture(2.5, 6) - 2.0, 0.2)
        filling = 0.75 - 0.5 * pale + (0.15 + 0.25 * pale) * clumps + 0.5 * pale * nucleoli
        filling = (filling + 0.08 * texture(0.5, 2)) * rng.uniform(0.65, 1.15, n)[owner]
        haematoxylin = haematoxylin * (1 - inside) + inside * filling + 0.4 * pale * rim
        eosin *= 1 - inside * (0.15 + 0.45 * pale)
        solid = np.maximum(solid, _soft(depth + 1.2, 0.3))

    empty = (1 - solid) * _soft(texture(4, 30) + 1.3 * patient.clefts - 2.2, 0.12)
    # The mitotic cell has rounded up: a membrane, and a cytoplasm of its own.
    membrane, within = np.exp(-((cell / 0.35) ** 2)), _soft(cell, 0.3)
    eosin = eosin * (1 + within * rng.uniform(-0.35, 0.25)) + 0.18 * membrane
    haematoxylin = haematoxylin * (1 - within * rng.uniform(0.2, 0.8)) + 0.06 * membrane
    return haematoxylin * (1 - empty), eosin * (1 - 0.95 * empty)


def _cell_discs(chromatin: Array, rng: Generator) -> Array:
    """Put a cell around its chromatin: one disc, or two where daughters separate."""
    reach = float((np.hypot(*chromatin[:, :2].T) + chromatin[:, 2]).max())
    # Where the chromatin is longest, seen from the centre.
    axis = np.linalg.svd(chromatin[:, :2], full_matrices=False)[2][0]
    along = chromatin[:, :2] @ axis
    if reach > 6 and np.abs(along).min() > 1.5 and np.unique(np.sign(along)).size == 2:
        daughters = [chromatin[along * side > 0, :2].mean(0) for side in (1, -1)]
        return np.array([(*place, rng.uniform(4.6, 5.4)) for place in daughters])
    return np.array([(0, 0, max(rng.uniform(5.5, 7.5), reach + rng.uniform(0.8, 1.8)))])


def render(subtype: str, patient: Patient, rng: Generator, size_px: int, mpp: float) -> Image.Image:
    """Draw one patch: an RGB image of `size_px` x `size_px`, the figure near its centre."""
    scanner = patient.scanner
    discs = draw_chromatin(subtype, rng) * patient.scale
    discs = _moved(discs, *rng.normal(0, 0.5, 2))
    cell = chromatin_depth(_cell_discs(discs, rng), size_px, mpp)
    cell += 0.4 * _texture(rng, size_px, mpp, 3, 10)
    haematoxylin, eosin = _tissue(cell, patient, rng, size_px, mpp)

    depth = chromatin_depth(discs, size_px, mpp) + 0.18 * _texture(rng, size_px, mpp, 0.7, 2.5)
    chromatin = _soft(depth, 0.12)
    grain = 1 + 0.12 * _texture(rng, size_px, mpp, 0.6, 2)
    haematoxylin *= 1 - chromatin
    haematoxylin += rng.uniform(1.1, 1.7) * chromatin * grain
    eosin *= 1 - 0.4 * chromatin

    # Beer-Lambert: stains absorb independently, light falls off exponentially.
    density = 2.3 * patient.haematoxylin * np.multiply.outer(
        haematoxylin, scanner.haematoxylin
    ) + 1.1 * patient.eosin * np.multiply.outer(eosin, scanner.eosin)
    light = np.exp(-np.clip(density, 0, None))  # (S, S, 3)

    defocus = scanner.blur * rng.uniform(1.0, 2.0) / mpp
    light = ndimage.gaussian_filter(light, (defocus, defocus, 0))
    light += scanner.sharpening * (light - ndimage.gaussian_filter(light, (1, 1, 0)))
    light = np.clip(light, 0, 1) ** scanner.gamma * scanner.white
    light += scanner.noise * rng.standard_normal(light.shape)
    pixels = (255 * np.clip(light, 0, 1)).round().astype(np.uint8)
    compressed = io.BytesIO()
    Image.fromarray(pixels).save(compressed, "JPEG", quality=scanner.jpeg_quality)
    return Image.open(compressed).convert("RGB")


# Which subtypes are taken for each other, row for row in the order of SUBTYPES: after the confusion
# of the two experts of AMi-Br.
_MISTAKEN_FOR: Final = np.array(
    [
        [0, 1, 2, 2, 8, 1, 1, 0],
        [1, 0, 3, 4, 0, 1, 2, 0],
        [1, 1, 0, 3, 3, 6, 3, 0],
        [1, 2, 3, 0, 1, 2, 7, 1],
        [5, 0, 4, 1, 0, 2, 1, 0],
        [0, 0, 3, 1, 1, 0, 8, 0],
        [0, 1, 2, 3, 0, 8, 0, 3],
        [0, 0, 0, 2, 0, 1, 8, 0],
    ]
)
_EXPERT_ERRORS: Final = {"expert1": 0.12, "expert2": 0.26}
_THIRD_VOTE_ERRORS: Final = 0.12
_SHARES: Final = np.sqrt([59, 71, 154, 255, 253, 1349, 1527, 52])
"""Class mix of AMi-Br, softened."""
_CERTAIN: Final = 6
"""Patients in which each subtype surely occurs, and is labelled rightly, where numbers allow."""


def _subtypes_and_patients(
    patients: int, patches: int, rng: Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Subtype, patient and whether it is beyond doubt, for each patch (N,)."""
    spare = max(0, patches - N_SUBTYPES)
    numbers = 1 + np.floor(spare * _SHARES / _SHARES.sum()).astype(np.int64)
    numbers[subtype_index("nmf_prometaphase")] += patches - numbers.sum()
    activity = rng.gamma(2.0, 1.0, patients)
    owners, certain = [], []
    for number in numbers:
        # A tumour leans to some subtypes.
        liking = activity * rng.gamma(1.5, 1.0, patients)
        sure = min(_CERTAIN, number, patients)
        owners.append(rng.choice(patients, sure, replace=False))
        owners.append(rng.choice(patients, number - sure, p=liking / liking.sum()))
        certain.append(np.arange(number) < sure)
    owner = np.concatenate(owners)
    for patient in np.setdiff1d(np.arange(patients), owner):  # nobody is left without a figure
        owner[rng.choice(np.flatnonzero(owner == np.bincount(owner).argmax()))] = patient
    order = np.argsort(owner, kind="stable")
    subtype = np.repeat(np.arange(N_SUBTYPES), numbers)
    return subtype[order], owner[order], np.concatenate(certain)[order]


def _rate(
    subtype: NDArray[np.int64], certain: NDArray[np.bool_], errors: float, rng: Generator
) -> NDArray[np.int64]:
    """Subtypes as a rater calls them (N,)."""
    mistaken = np.array([rng.choice(N_SUBTYPES, p=w / w.sum()) for w in _MISTAKEN_FOR[subtype]])
    return np.where((rng.random(len(subtype)) < errors) & ~certain, mistaken, subtype)


def make_synthetic_cohort(
    out: Path,
    *,
    patients: int = 36,
    patches: int = 900,
    seed: int = 0,
    size_px: int = 96,
    mpp: float = 0.25,
) -> Cohort:
    """Invent a cohort and write it.

    Args:
        out: Cohort folder to make; the same other arguments give the same bytes.
        patients: At least 3, one per scanner.
        patches: At least 8, one per subtype, and at least as many as patients.
        seed: Of everything random.
        size_px: Side of a patch, px; at least 16.
        mpp: µm per pixel, 0.05 to 2.

    Raises:
        InputError: A number is out of range, or `out` exists.
        AtypiaError: The folder cannot be written.
    """
    least = {"patients": len(SCANNERS), "patches": max(N_SUBTYPES, patients), "size_px": 16}
    given = {"patients": patients, "patches": patches, "size_px": size_px}
    problems = [
        Problem(f"expected {name} of at least {least[name]} but got {value}.")
        for name, value in given.items()
        if value < least[name]
    ]
    if not 0.05 <= mpp <= 2:
        problems.append(Problem(f"expected an mpp between 0.05 and 2 µm per pixel but got {mpp}."))
    if problems:
        raise InputError(problems)
    rng = np.random.default_rng([seed, 0])
    subtype, owner, certain = _subtypes_and_patients(patients, patches, rng)
    cases = [Patient.draw(SCANNERS[p % len(SCANNERS)], rng) for p in range(patients)]
    ratings = {name: _rate(subtype, certain, e, rng) for name, e in _EXPERT_ERRORS.items()}
    # SUBTYPES begins with the atypical ones.
    votes = {name: given < N_ATYPICAL for name, given in ratings.items()}
    mistaken = (rng.random(patches) < _THIRD_VOTE_ERRORS) & ~certain
    votes["expert3"] = (subtype < N_ATYPICAL) ^ mistaken

    names = np.array(SUBTYPES)
    manifest = pd.DataFrame({"patch_id": [f"synthetic_{i:05}" for i in range(patches)]})
    manifest["file"] = "patches/" + manifest["patch_id"] + ".png"
    manifest["patient_id"] = [f"P{p:03}" for p in owner]
    manifest["domain"] = [cases[p].scanner.domain for p in owner]
    manifest["scanner"] = [cases[p].scanner.name for p in owner]
    manifest["mpp"] = mpp
    for name, rating in ratings.items():
        manifest[f"label_{name}"] = names[rating]
    for name, vote in votes.items():
        manifest[f"atypical_{name}"] = vote
    manifest["majority_atypical"] = sum(vote.astype(int) for vote in votes.values()) >= 2

    with building_folder(out) as folder:
        (folder / "patches").mkdir()
        for i, file in enumerate(manifest["file"]):
            # A generator of its own: a patch depends on nothing but the seed and its number.
            own = np.random.default_rng([seed, 1, i])
            patch = render(SUBTYPES[subtype[i]], cases[owner[i]], own, size_px, mpp)
            patch.save(folder / file)
        about = {"kind": "synthetic", "license": "CC0-1.0", "seed": seed}
        Cohort.write(folder, "Atypia synthetic cohort", manifest, about)
    return Cohort.open(out)
