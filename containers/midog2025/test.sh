#!/usr/bin/env bash
# Run the image on one case as Grand Challenge does: no network, read-only input, empty /tmp.
#
#   test.sh CASE OUT [MODEL]   CASE: a folder with inputs.json and images/; OUT: a new folder
#                              MODEL: the export that build.sh made
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
docker=${DOCKER:-docker}
case=$(realpath -- "$1")
mkdir -p "$2"
out=$(realpath -- "$2")
model=$(realpath -- "${3:-$here/upload/model}")

chmod a+rwX "$out"
"$docker" run --rm --platform=linux/amd64 --network=none --read-only --cap-drop=ALL \
    --tmpfs /tmp \
    --volume "$case:/input:ro" \
    --volume "$out:/output" \
    --volume "$model:/opt/ml/model:ro" \
    atypia-midog2025
cat "$out/multiple-mitotic-figure-classification.json"
