"""JSON and YAML that anyone may have written: what they hold, or a sentence on why they cannot."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

import yaml

from atypia.core.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

_LARGEST_INT: Final = 2**63
_MOST_NODES: Final = 1_000_000
"""Values in a YAML file, each alias counted as all that it stands for."""


def parse_json(data: bytes, source: str) -> Any:
    """Parse strict JSON in UTF-8, named `source` in messages.

    Raises:
        InputError: It is no JSON; or holds what no file of ours does: NaN, infinite or huge
            numbers, or levels without end.
    """
    try:
        text = data.decode("utf-8-sig")
        if "\\ud" in text.lower():
            json.dumps(json.loads(text), ensure_ascii=False).encode()  # halves of a character
        return json.loads(
            text, parse_constant=_finite, parse_float=_finite, parse_int=_int_of_64_bits
        )
    except RecursionError:
        why = "it nests too deeply"
    except ValueError as error:  # of Unicode and of numbers, too
        why = str(error)
    raise InputError(f"{source}: expected JSON but got something else ({why}).")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no finite number")
    return number


def _int_of_64_bits(text: str) -> int:
    # Python refuses to read more digits with a message of its own.
    if len(text) > 20 or not -_LARGEST_INT <= (number := int(text)) < 2 * _LARGEST_INT:
        raise ValueError(f"the number {text[:20]}... has too many digits")
    return number


def parse_yaml(text: str | bytes, source: str) -> Any:
    """Parse YAML, named `source` in messages.

    Raises:
        InputError: It is no YAML, nests too deeply, or its aliases stand for too much.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            # Before anything is made of it: merged aliases multiply there.
            if node is not None and _expanded(node, {}) > _MOST_NODES:
                raise ValueError("its aliases stand for too many values")
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        why = "it nests too deeply"
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:  # of dates and numbers
        why = str(error)
    raise InputError(Problem(f"expected YAML but got: {why}", source))


def _expanded(node: yaml.Node, sizes: dict[int, float]) -> float:
    """Count the values below a node, those of an alias each time; infinite where one holds itself.

    `sizes` are those of nodes already counted.
    """
    if id(node) not in sizes:
        sizes[id(node)] = math.inf
        below: Sequence[yaml.Node] = ()
        if isinstance(node, yaml.SequenceNode):
            below = node.value
        elif isinstance(node, yaml.MappingNode):
            below = [part for pair in node.value for part in pair]
        sizes[id(node)] = 1 + sum(_expanded(part, sizes) for part in below)
    return sizes[id(node)]
