"""One folder per class: ``nmf_ring/``, ``AMF multipolar/``, or ``atypical/`` and ``normal/``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from atypia.core import labels
from atypia.core.errors import InputError
from atypia.core.found_files import files_below
from atypia.data.images import IMAGE_SUFFIXES
from atypia.data.sources.patients import assign_patients, check_patient_options
from atypia.data.sources.records import Record, SourceRecords, resolution_problems

if TYPE_CHECKING:
    from pathlib import Path, PurePath

    from atypia.data.sources.records import PrepareOptions

_VOTE_FOLDERS: Final = {"atypical": "True", "amf": "True", "normal": "False", "nmf": "False"}


def read_folders(source: Path, options: PrepareOptions) -> SourceRecords:
    """Read images from folders named after classes, at any depth.

    The innermost folder that names a subtype is the label of ``options.rater``; where none does,
    the innermost one named atypical or normal is that rater's vote; where none does either,
    ``options.unlabelled`` must allow it. A patch's id is its path below `source` without suffix.

    Raises:
        InputError: No image, no resolution, or no patients.
    """
    files = files_below(source)
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise InputError(
            f"{source}: expected an AMi-Br checkout (AMI-BR.csv and patches/), or one folder of "
            "images per class, but found no image. For a table of paths give the CSV file itself."
        )
    problems = check_patient_options(options, column=None)
    problems += resolution_problems(options, "patches")
    if problems:
        raise InputError(problems)
    records = [_record(source, path, options) for path in images]
    assign_patients(records, options)
    ignored = [path.relative_to(source).as_posix() for path in files if path not in set(images)]
    return SourceRecords("folders", records, {"ignored_files": ignored} if ignored else {})


def _record(source: Path, path: Path, options: PrepareOptions) -> Record:
    below = path.relative_to(source)
    record = Record(
        file=str(path),
        origin=path,
        path_text=below.as_posix(),
        patch_id=below.with_suffix("").as_posix(),
        domain=options.domain or "",
        scanner=options.scanner,
        mpp=options.mpp,
        unlabelled=options.unlabelled,
    )
    subtype, vote = _classes(below.parent)
    if subtype is not None:
        record.answers[f"label_{options.rater}"] = subtype
    elif vote is not None:
        record.answers[f"atypical_{options.rater}"] = vote
    elif not options.unlabelled:
        record.fault(
            f"expected a folder named after one of {list(labels.SUBTYPES)}, or atypical or normal, "
            f"but got {below.parent.as_posix()!r}."
        )
    return record


def _classes(folder: PurePath) -> tuple[str | None, str | None]:
    """Subtype and vote that the folder's name, or an outer one's, stands for."""
    names = folder.parts[::-1]
    subtypes = (labels.parse_subtype(name) for name in names)
    votes = (_VOTE_FOLDERS.get(name.strip().lower()) for name in names)
    return next(filter(None, subtypes), None), next(filter(None, votes), None)
