"""Fit the guard of the model in the package; ``make_release.py --guard`` calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from atypia.classifiers.ensemble import Ensemble, replace_guard
from atypia.core.choices import BEST, FAST
from atypia.training.guard_fit import fit_guard

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

MPP = 0.25
SIDE_PX = 128
REACH_PX = 90
"""Of a figure beyond a crop, as far as it could be taken for something else in it."""
SEEN = (
    "crops of AMi-Br and AtNorM-MD: off-centre nuclei, stroma, and drawn pyknotic nuclei, clumps, "
    "pigment, ink and folds. Real look-alikes that a pathologist has named were not among them."
)


def fit_guards(folder: Path, ami_br: Path) -> None:
    """Fit the guard of either quality on all crops of AMi-Br and of AtNorM-MD, which lies beside.

    Votes and subtypes are not used. It takes half an hour on one core.
    """
    patches, table = read_ami_br(ami_br)
    more, groups = read_atnorm(ami_br.parent / "atnorm-md")
    nothing = np.empty((0, 2), np.int64)
    for quality in (BEST, FAST):
        ensemble = Ensemble.load(folder, quality)
        guarded = fit_guard(
            ensemble,
            np.concatenate([patches, more]),
            MPP,
            np.concatenate([table["patient"].to_numpy(dtype=str), groups]),
            np.concatenate([table["dataset"].to_numpy(dtype=str), np.full(len(more), "AtNorM-MD")]),
            others=[*neighbours(table), *[nothing] * len(more)],
            seen=SEEN,
        )
        replace_guard(folder, quality, guarded)


def read_atnorm(folder: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.str_]]:
    """Read all crops (N, 128, 128, 3) of AtNorM-MD, and the group (N,) of each."""
    table = pd.read_csv(folder / "groups.csv")
    files = [folder / f"{name}.png" for name in table["patch_id"]]
    read = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    return np.stack(read), table["patient_id"].to_numpy(dtype=str)


def read_ami_br(folder: Path) -> tuple[npt.NDArray[np.uint8], pd.DataFrame]:
    """Read all crops (N, 128, 128, 3), and AMI-BR.csv with a column ``patient``."""
    table = pd.read_csv(folder / "AMI-BR.csv", index_col=0)
    table["patient"] = table["dataset"] + "_" + table["slide"].astype(str)
    kind = table["majority_atypical"].map({True: "atypical", False: "normal"})
    files = kind + "/" + table["dataset"] + "_" + table["uid"].astype(str) + ".png"
    read = [np.asarray(Image.open(folder / "patches" / file).convert("RGB")) for file in files]
    return np.stack(read), table


def neighbours(table: pd.DataFrame) -> list[npt.NDArray[np.int64]]:
    """Give the places, y and x in px of its crop, of the other figures in each crop."""
    at = table[["y", "x"]].to_numpy()
    same = table["patient"].groupby(table["patient"]).indices
    off = [at[same[patient]] - at[i] for i, patient in enumerate(table["patient"])]
    near = [o[(np.abs(o).max(axis=1) < REACH_PX) & o.any(axis=1)] for o in off]
    return [(o + SIDE_PX // 2).astype(np.int64) for o in near]
