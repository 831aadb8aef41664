"""Sources of patches: each reader turns what people have into records for a cohort."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from atypia.core.errors import InputError
from atypia.data.sources.ami_br import TABLE_NAME, read_ami_br
from atypia.data.sources.atnorm import is_atnorm, read_atnorm
from atypia.data.sources.folders import read_folders
from atypia.data.sources.listing import read_listing
from atypia.data.sources.midog import find_midog25, find_midog_json, read_midog25, read_midog_json
from atypia.data.sources.omg_octo import find_omg_octo, read_omg_octo
from atypia.data.sources.records import (
    Columns,
    ImageRegion,
    PrepareOptions,
    Record,
    SourceRecords,
    field_of,
    mark_duplicates,
    mark_spellings,
    without_repeats,
)

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("atypia")

__all__ = ["Columns", "ImageRegion", "PrepareOptions", "Record", "SourceRecords", "read_source"]


def read_source(source: Path, options: PrepareOptions) -> SourceRecords:
    """Recognise a source and read it.

    Public cohorts are known by the files and columns that their authors publish: AMi-Br by
    ``AMI-BR.csv``, the MIDOG 2025 training set and OMG-Octo by the columns of their table, AtNorM
    by its folders and a table of votes, MIDOG++ by its JSON file. Any other folder holds one folder
    per class; any other file is a table, of centres where ``options.field_um`` is given and of
    image paths where it is not, as is every table whose columns the user names.

    Raises:
        InputError: Lists every problem that concerns the source as a whole. What is wrong with
            one patch is with its record.
    """
    if not source.exists():
        raise InputError(
            f"{source}: expected a folder, a CSV file or the JSON file of MIDOG but it does not "
            "exist."
        )
    found = _read(source, options)
    records = without_repeats(found.records)
    if n_repeated := len(found.records) - len(records):
        log.warning("%s: %d rows repeat another one; each is taken once", source, n_repeated)
    found = replace(found, records=records)
    for record in found.records:
        record.check()
    mark_duplicates(found.records)
    mark_spellings(found.records)
    return found


def _read(source: Path, options: PrepareOptions) -> SourceRecords:
    if (source / TABLE_NAME).is_file():
        return read_ami_br(source, options)
    if not options.columns.model_fields_set:
        if (table := find_midog25(source)) is not None:
            return read_midog25(table, options)
        if (table := find_omg_octo(source)) is not None:
            return read_omg_octo(table, options)
        if (file := find_midog_json(source)) is not None:
            return read_midog_json(file, options)
        if is_atnorm(source):
            return read_atnorm(source, options)
    if source.is_dir():
        return read_folders(source, options)
    if options.images is not None:
        field_of(options)
    return read_listing(source, options)
