"""Draw docs/images/synthetic-cohort.webp: ``python docs/make_sheet.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from atypia.core.labels import DISPLAY_NAMES, SUBTYPES
from atypia.data.synthetic import SCANNERS, Patient, render

SIZE_PX, MPP, PATIENTS, GAP, NAMES = 96, 0.25, 3, 4, 170


def sheet(seed: int = 0) -> Image.Image:
    """One row per subtype, `PATIENTS` patients of each scanner side by side."""
    step, font = SIZE_PX + GAP, ImageFont.load_default(14)
    width, height = NAMES + len(SCANNERS) * PATIENTS * step, 24 + len(SUBTYPES) * step
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for column in range(len(SCANNERS) * PATIENTS):
        scanner = SCANNERS[column // PATIENTS]
        x = NAMES + column * step
        if column % PATIENTS == 0:
            draw.text((x, 2), f"scanner {scanner.name}, domain {scanner.domain}", "black", font)
        for row, subtype in enumerate(SUBTYPES):
            patient = Patient.draw(scanner, np.random.default_rng([seed, 0, column]))
            patch = render(
                subtype, patient, np.random.default_rng([seed, row, column]), SIZE_PX, MPP
            )
            image.paste(patch, (x, 24 + row * step))
    for row, subtype in enumerate(SUBTYPES):
        draw.text((4, 24 + row * step + SIZE_PX // 2 - 8), DISPLAY_NAMES[subtype], "black", font)
    return image


if __name__ == "__main__":
    path = Path(__file__).parent / "images" / "synthetic-cohort.webp"
    path.parent.mkdir(exist_ok=True)
    sheet().convert("RGB").save(path, quality=60, method=6)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
