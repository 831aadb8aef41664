"""Whether figures on a slide are answered like their patches, at 40x and at half of it.

    python benchmarks/mosaic.py cohorts/ami-br [--model released] [--quality fast]

Lays the patches of a cohort side by side on a tiled pyramid of 0.25 µm per pixel, and on one of
0.5 µm, where the mean of each 2 x 2 pixels stands for them. Classifies the middle of each with
`classify_slide` and compares with the answers to the patches themselves. Prints JSON, with the
goals: the same subtype for all figures at 0.25 µm, for 95 % of them at 0.5 µm.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from atypia.classifiers.loading import find_model, load_ensemble
from atypia.core.labels import PROBABILITY_COLUMNS
from atypia.data.cohort import Cohort
from atypia.data.images import read_patch
from atypia.inference.patch_predictions import predict_arrays
from atypia.inference.slide_predictions import classify_slide
from atypia.slides.candidates import Candidate
from atypia.slides.slide_pool import SlidePool

TILE = 256


def main() -> None:
    """Build both slides, classify, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--model", default="released")
    parser.add_argument("--quality", default="best")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--patches", type=int, help="a sample of so many; all by default")
    options = parser.parse_args()
    cohort = Cohort.open(options.cohort)
    paths = list(cohort.image_paths())
    if options.patches:
        chosen = np.random.default_rng(0).choice(len(paths), options.patches, replace=False)
        paths = [paths[i] for i in sorted(chosen)]
    patches = np.stack([read_patch(path) for path in paths])
    side = patches.shape[1]
    (mpp,) = set(cohort.manifest["mpp"])
    columns = math.ceil(math.sqrt(len(patches)))
    mosaic = np.full((columns * side, columns * side, 3), 245, np.uint8)
    candidates = []
    for i, patch in enumerate(patches):
        y, x = (side * place for place in divmod(i, columns))
        mosaic[y : y + side, x : x + side] = patch
        candidates.append(Candidate(paths[i].stem, x + side / 2, y + side / 2))
    model = load_ensemble(find_model(options.model), options.quality, backend=options.backend)
    expected = predict_arrays(model, list(patches), mpp)
    figures: dict[str, object] = {"patches": len(patches), "quality": options.quality}
    same = []
    with tempfile.TemporaryDirectory() as scratch:
        for factor in (1, 2):
            slide = Path(scratch) / f"{factor}.tif"
            write_slide(slide, reduced(mosaic, factor), mpp * factor)
            places = [Candidate(c.id, c.x / factor, c.y / factor) for c in candidates]
            with SlidePool(slide) as pool:
                found, problems = classify_slide(model, pool, places)
            if problems:
                raise SystemExit("\n".join(str(problem) for problem in problems))
            columns_of_p = list(PROBABILITY_COLUMNS)
            differences = np.abs(found[columns_of_p].to_numpy() - expected[columns_of_p].to_numpy())
            figures[f"{mpp * factor:g} µm per pixel"] = {
                name: float((found[name].to_numpy() == expected[name].to_numpy()).mean())
                for name in ("predicted_subtype", "predicted_atypical")
            } | {"largest_difference": float(differences.max())}
            same.append((found["predicted_subtype"] == expected["predicted_subtype"]).mean())
    figures["goals"] = {"all at full resolution": same[0] == 1, "95 % at half": same[1] >= 0.95}
    print(json.dumps(figures, indent=2, ensure_ascii=False, default=bool))


def reduced(image: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.uint8]:
    """Mean of each square of pixels."""
    height, width = (n // factor for n in image.shape[:2])
    squares = image.reshape(height, factor, width, factor, 3)
    return np.asarray(squares.mean(axis=(1, 3), dtype=np.float32).round(), dtype=np.uint8)


def write_slide(path: Path, image: npt.NDArray[np.uint8], mpp: float) -> None:
    """Write a lossless tiled pyramid of two levels."""
    import tifffile

    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(2):
            tiff.write(
                reduced(image[: len(image) // 2 * 2, : len(image) // 2 * 2], 2) if level else image,
                tile=(TILE, TILE),
                compression="deflate",
                photometric="rgb",
                subfiletype=level,
                resolution=(1e4 / (mpp * 2**level),) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )


if __name__ == "__main__":
    main()
