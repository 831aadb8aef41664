"""Compare the vendored OpenSeadragon with the package of npm, or bring another version.

    python dev/vendor.py            # is it the file of the version that is named beside it?
    python dev/vendor.py 5.0.1      # take that version

Needs npm and the network; npm checks the package against the registry's hash. That the file is the
one whose hash is written beside it is tested without the network.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "src/atypia/web/static/vendor"
SCRIPT, LICENCE, HASH = (
    FOLDER / f"openseadragon.{name}" for name in ("min.js", "LICENSE.txt", "sha256.txt")
)


def fetch(version: str) -> tuple[bytes, bytes]:
    """Fetch script and licence of a version from npm."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"openseadragon@{version}"]
        name = subprocess.check_output(command, cwd=folder, text=True).split()[-1]
        with tarfile.open(Path(folder) / name) as package:
            members = "build/openseadragon/openseadragon.min.js", "LICENSE.txt"
            files = [package.extractfile(f"package/{member}") for member in members]
            script, licence = (file.read() for file in files if file is not None)
    return script, licence


def main(version: str | None = None) -> None:
    """Compare, or take a version."""
    named = re.search(r"openseadragon (\S+) \(npm\)", HASH.read_text("utf-8"))
    assert named is not None, HASH
    script, licence = fetch(version or named[1])
    if version is None:
        if (script, licence) != (SCRIPT.read_bytes(), LICENCE.read_bytes()):
            sys.exit(f"{SCRIPT} or its licence is not that of openseadragon {named[1]} at npm.")
        print(f"openseadragon {named[1]}: the same as at npm.")
        return
    SCRIPT.write_bytes(script)
    LICENCE.write_bytes(licence)
    digest = hashlib.sha256(script).hexdigest()
    text = f"{digest}  {SCRIPT.name} of openseadragon {version} (npm)\n"
    HASH.write_text(text, encoding="utf-8")
    print(f"openseadragon {version}: taken.")


if __name__ == "__main__":
    main(*sys.argv[1:])
