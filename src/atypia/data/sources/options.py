"""What a user can say about a source: column names, patients, resolution."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic resolves it when the class is made
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from atypia.core.errors import InputError

RaterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$")]


class Columns(BaseModel):
    """Names of a table's columns; the defaults are those of a cohort's own manifest.

    A column that is named here explicitly must exist. Of the defaults, only what the kind of
    source cannot do without must.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = "file"
    """Path of the image, absolute or below the folder of the table."""
    patch_id: str = "patch_id"
    patient: str = "patient_id"
    domain: str = "domain"
    scanner: str = "scanner"
    mpp: str = "mpp"
    image: str = "image"
    """File name of the source image, in a table of centres."""
    x: str = "x"
    y: str = "y"
    labels: dict[RaterName, str] = {}
    """Rater → column of subtypes; where empty, every column ``label_<rater>`` is taken."""
    votes: dict[RaterName, str] = {}
    """Rater → column of atypical/normal votes; where empty, every ``atypical_<rater>``."""
    majority: str = "majority_atypical"


class PrepareOptions(BaseModel):
    """Options of :func:`atypia.data.cohort_builder.prepare`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    """Name of the cohort; the name of the output folder by default."""
    mpp: float | None = Field(None, ge=0.01, le=10)
    """µm per pixel, where the source does not say it or says it wrongly."""
    domain: str | None = None
    """Domain of patches for which the source names none; the cohort's name by default."""
    scanner: str = ""
    """Scanner of patches for which the source names none."""
    rater: RaterName = "expert1"
    """Whose labels the class folders are."""
    columns: Columns = Columns()
    patients: Path | None = None
    """CSV with the columns ``patch_id`` and ``patient_id``; a patch may also be named by its path
    or its file name."""
    patient_regex: str | None = None
    """Finds the patient in the path of a patch: the group ``patient``, else the first group, else
    the whole match."""
    patient_per_patch: bool = False
    """State that every patch is of another patient."""
    images: Path | None = None
    """Folder of the source images that a table of centres refers to."""
    field_um: float | None = Field(None, gt=0, le=1000)
    """Side of the square to crop from source images, µm."""
    centre_unit: Literal["px", "um"] = "px"
    """Unit of the centres: px on level 0, or µm from the top left corner."""
    mixed_sizes: bool = False
    """Accept patches of different sizes at one resolution; else they are taken for a mistake."""
    unlabelled: bool = False
    """Accept patches without any label and vote, to learn from or to predict."""
    skip_bad: bool = False
    """Leave out what is wrong, count it and list it in ``skipped.csv``, instead of refusing."""


def field_of(options: PrepareOptions) -> float:
    """Side of the square to crop from source images, µm.

    Raises:
        InputError: It is not given.
    """
    if options.field_um is None:
        raise InputError(
            "--images: expected the field of view to crop, too. Give --field-um "
            "(the crops of the AMi-Br release are 32 µm wide)."
        )
    return options.field_um
