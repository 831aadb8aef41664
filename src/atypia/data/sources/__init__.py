"""Sources of patches: each reader turns what people have into records for a cohort."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atypia.data.sources.ami_br import is_ami_br, read_ami_br
from atypia.data.sources.folders import read_folders
from atypia.data.sources.listing import read_listing
from atypia.data.sources.options import Columns, PrepareOptions
from atypia.data.sources.records import Found, Record, Region, mark_duplicates
from atypia.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Columns", "Found", "PrepareOptions", "Record", "Region", "read_source"]


def read_source(source: Path, options: PrepareOptions) -> Found:
    """Recognise a source and read it.

    An AMi-Br checkout has ``AMI-BR.csv``; any other folder holds one folder per class; a file is
    a table, of centres where ``options.field_um`` is given and of image paths where it is not.

    Raises:
        InputError: Lists every problem that concerns the source as a whole. What is wrong with
            one patch is with its record.
    """
    if options.images is not None and options.field_um is None:
        raise InputError(
            "--images: expected the field of view to crop, too. Give --field-um "
            "(the crops of the AMi-Br release are 32 µm wide)."
        )
    if source.is_dir():
        found = (read_ami_br if is_ami_br(source) else read_folders)(source, options)
    elif source.is_file():
        found = read_listing(source, options)
    else:
        raise InputError(f"{source}: expected a folder or a CSV file but it does not exist.")
    for record in found.records:
        record.check()
    mark_duplicates(found.records)
    return found
