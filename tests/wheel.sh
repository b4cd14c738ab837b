#!/usr/bin/env bash
# `make test-wheel`: sdist, wheel, an empty environment, and all commands in an empty folder.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"${PY:-python3}" -m build --outdir "$scratch/dist" . > "$scratch/build.log" 2>&1 || { cat "$scratch/build.log"; exit 1; }
python3 -m zipfile -l "$scratch"/dist/*.whl | awk '{print $1}' > "$scratch/files"
diff <(git ls-files conf p2p hydra_plugins data | sed 's|^conf/|p2p/conf/|; s|^data/samples/|p2p/samples/|; s|^data/models/|p2p/weights/|' | sort) \
  <(grep -v '^File\|\.dist-info/' "$scratch/files" | sort) || { echo "the wheel holds other files than these folders"; exit 1; }

python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$scratch"/dist/*.whl \
  --constraint "$repository/constraints.txt"
mkdir "$scratch/empty"
cd "$scratch/empty"
export PATH="$scratch/venv/bin:$PATH" OMP_NUM_THREADS=1 XDG_CACHE_HOME="$scratch/cache"

p2p --help
p2p train epochs=1 image_size=32 generator.width=8 discriminator.width=8
p2p export
p2p infer +pipeline=overlap batch_size=8
python -m p2p infer input="$repository/data/samples/val" layout=side_by_side output=again
test "$(find runs/default/images -name '*.png' | wc -l)" = 16
diff -r --exclude='*.csv' --exclude='.*' --exclude='*.json' runs/default/images again
p2p to-reference runs/default/checkpoints/last.ckpt reference
p2p to-safetensors runs/default/checkpoints/last.ckpt mine.safetensors
p2p infer weights=mine.safetensors input=runs/default/images output=twice
p2p infer weights=emoji input="$repository/data/samples/val" layout=side_by_side name=emoji
p2p pair edges "$repository/data/samples/val" pairs
python - <<'API'
import sys
import p2p
from p2p.shipped import SAMPLES
assert p2p.__file__.startswith(sys.prefix), p2p.__file__
image = p2p.load("runs/default/export")(next(iter(SAMPLES.glob("val/*.jpg"))))
assert image.size == (32, 32)
API
echo "the wheel works"
