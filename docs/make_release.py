"""Make the model in the package from the run that trained it.

    python docs/make_release.py runs/students --fast runs/fast --out src/atypia/released

The weights go to 16 bits; the rest of the bundles stays as the runs left it. The model card is
written by ``make_model_card.py`` afterwards.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from atypia.classifiers.ensemble import Ensemble, add_quality


def main() -> None:
    """Copy the bundle of one run, and give it that of the other as its quality fast."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fast", type=Path, required=True, help="from atypia distill")
    options = parser.parse_args()
    Ensemble.load(options.run).save(options.out, half=True)
    add_quality(options.out, Ensemble.load(options.fast), half=True)
    size = sum(file.stat().st_size for file in options.out.iterdir())
    print(f"{options.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
