"""Which entries of a file belong to a slide, by the name that they give it.

QuPath, spreadsheets, and the tools of challenges name the slide in a column or a property of their
own, with or without folders and extension, in either case.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

_KEYS: Final = (
    *("slide", "image", "filename", "slideid", "imageid", "wsi", "slidename", "imagename"),
    *("slidefile", "imagefile", "wsiname", "wsiid", "wsifile", "file", "imagepath", "slidepath"),
)
"""Names of columns and properties that name the slide, lower case, letters alone; best first."""


_SUFFIX: Final = re.compile(
    r"(?:\.(?:ome\.)?(?:tiff?|svs|ndpi|mrxs|scn|bif|vms|czi|vsi|dcm|png|jpe?g|bmp|webp))+$",
    re.IGNORECASE,
)


def without_suffix(name: str) -> str:
    """Name of a file without the suffixes of images; other dots belong to the name."""
    return _SUFFIX.sub("", name)


def slide_keys(names: Iterable[str]) -> list[str]:
    """Those of `names` (columns, properties) that name a slide, the best first."""
    plain = {name: re.sub(r"[^a-z]", "", name.lower()) for name in names}
    return sorted((n for n in plain if plain[n] in _KEYS), key=lambda n: _KEYS.index(plain[n]))


def named_slide(properties: Mapping[str, object]) -> str | None:
    """Slide that the properties of a feature name; None where they name none."""
    values = (properties[key] for key in slide_keys(properties))
    return next((str(v) for v in values if isinstance(v, str | int) and str(v).strip()), None)


def of_slide(names: Sequence[str], slide: Path) -> list[bool]:
    """Which of `names` mean this slide.

    The closest agreement that any of them has decides: the name, the name without extension, both
    in either case, and last a barcode of TCGA, or the name with what QuPath puts behind it.
    """
    plain = [PurePosixPath(name.strip().replace("\\", "/")).name for name in names]
    ways: tuple[Callable[[str], bool], ...] = (
        lambda name: name == slide.name,
        lambda name: without_suffix(slide.name) in (name, without_suffix(name)),
        lambda name: name.lower() == slide.name.lower(),
        lambda name: without_suffix(slide.name.lower()) == without_suffix(name.lower()),
        lambda name: slide.name.startswith("TCGA-") and name == slide.name.partition(".")[0],
        lambda name: re.split(r" - | \[|#", name)[0].lower() == slide.name.lower(),
    )
    for way in ways:
        same = [way(name) for name in plain]
        if any(same):
            return same
    return [False] * len(names)


def file_names(names: Sequence[str]) -> list[str]:
    """File names for slides: what no file system minds, each once."""
    files: dict[str, str] = {}  # by what a file system that ignores case takes for the same
    for name in names:
        plain = re.sub(r"[^\w.-]+", "_", name).strip("._") or "slide"
        file, number = plain, 2
        while file.lower() in files:
            file, number = f"{plain}-{number}", number + 1
        files[file.lower()] = file
    return list(files.values())
