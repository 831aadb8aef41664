"""Make the model in the package from the run that trained it.

    python docs/make_release.py runs/all --out src/atypia/released [--fast runs/fast]

The weights go to 16 bits; everything else of the bundle stays as the run left it. The model card is
written by ``make_model_card.py`` afterwards.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from atypia.ensemble import Ensemble, add_quality


def main() -> None:
    """Copy the run's bundle, and a fast model's beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fast", type=Path, help="run of a fast model, from atypia distill")
    options = parser.parse_args()
    Ensemble.load(options.run).save(options.out, half=True)
    if options.fast is not None:
        add_quality(options.out, Ensemble.load(options.fast), half=True)
    size = sum(file.stat().st_size for file in options.out.iterdir())
    print(f"{options.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
