#!/usr/bin/env bash
# The fast tests with the newest of everything, also beyond the upper bounds in pyproject.toml: what
# will break is seen before a bound is raised. It works in a copy and an environment of its own.
#
#   dev/newest.sh [FOLDER]     default: a temporary folder, which is removed
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-$(mktemp -d)}
[[ $# -gt 0 ]] || trap 'rm -rf -- "$folder"' EXIT
mkdir -p "$folder/atypia"
git archive HEAD | tar --extract --directory "$folder/atypia"
cd "$folder/atypia"
sed --in-place --regexp-extended 's/(>=[0-9.]+),<[0-9.]+"/\1"/g' pyproject.toml
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[dev]'
"$folder/venv/bin/python" -m pip list
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -m pytest --numprocesses auto --dist loadfile
