#!/usr/bin/env bash
# Build the image and pack what Grand Challenge wants: the image and, apart from it, the model.
#
#   build.sh [MODEL [OUT]]     MODEL: released (default), a bundle, or a run folder
#
# DOCKER=podman builds with podman. Needs atypia with the extra onnx, for the export.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname -- "$(dirname -- "$here")")
docker=${DOCKER:-docker}
model=${1:-released}
out=${2:-$here/upload}
image=atypia-midog2025

mkdir -p "$out"
atypia export --model "$model" --out "$out/model"
tar --owner=0 --group=0 --mode=a+rX -czf "$out/model.tar.gz" -C "$out/model" .

"$docker" build --platform=linux/amd64 --tag "$image" --file "$here/Dockerfile" "$root"
"$docker" save "$image" | gzip > "$out/$image.tar.gz"

echo "Upload $out/$image.tar.gz as the container and $out/model.tar.gz as its model."
