"""What scripts rely on: each command in its order, with its options, their types and defaults.

PYTHONPATH=CHECKOUT/src python dev/contract.py > contract.json; a diff of two compares checkouts.
"""

from __future__ import annotations

import inspect
import json
from typing import Annotated, get_args, get_origin, get_type_hints

from atypia.cli import app

KEPT = ("param_decls", "min", "max", "metavar", "hidden", "is_eager")


def signature(function: object) -> dict[str, object]:
    """Name of each argument or option to all of it but the help text."""
    hints = get_type_hints(function, include_extras=True)
    found: dict[str, object] = {}
    for name, parameter in inspect.signature(function).parameters.items():  # type: ignore[arg-type]
        kind, info = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (None, None)
        found[name] = {
            "kind": type(info).__name__,
            "type": str(kind),
            "required": parameter.default is inspect.Parameter.empty,
            "default": str(parameter.default),
            **{key: value for key in KEPT if (value := getattr(info, key, None)) is not None},
        }
    return found


def main() -> None:
    """Print the contract."""
    commands = [c for c in app.registered_commands if c.callback is not None]
    found = {c.name or c.callback.__name__: signature(c.callback) for c in commands if c.callback}
    assert app.registered_callback is not None
    found["atypia"] = signature(app.registered_callback.callback)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
