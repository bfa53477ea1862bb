"""Build the page that derains in the browser: `build/web`, plain files that any static host serves.

    python scripts/build_web.py            into build/web
    python scripts/build_web.py FOLDER     into another folder

Needs the extra `onnx`, and npm, which fetches the runtime once. Look at it with
`python -m http.server --bind 127.0.0.1 --directory build/web`.
"""

import argparse
import base64
import csv
import gzip
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manas_lite import load, open_split
from manas_lite.compute.footprint import OVERHEAD, bytes_per_pixel
from manas_lite.photos.images import write_image
from manas_lite.photos.onnx_export import export_onnx
from manas_lite.photos.zoo import SHIPPED
from manas_lite.runs.documents import read_json

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "web"
PHOTOS = ROOT / "manas_lite" / "assets" / "photos"
LIMIT = 15_000_000
"""Bytes that the page may have in all."""

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
RUNTIME = {"ort.mjs": "ort.wasm.bundle.min.mjs", "ort.wasm.bin": "ort-wasm-simd-threaded.wasm"}
"""Files of the page, and those of the package that they are."""

EXAMPLE, LEVEL = "coco_000000000471", "heavy"  # CC BY 2.0: a rainy version may be shown with its source named


class BuildError(RuntimeError):
    """The page cannot be built; the message says what to do."""


def fetch_runtime(folder: Path) -> dict[str, bytes]:
    """Return the page's files of onnxruntime-web, from the archive in `folder`, which npm fetches where it is missing.

    Raises:
        BuildError: npm is missing or fails, or the archive is not the pinned one.
    """
    archive = folder / f"{PACKAGE}-{VERSION}.tgz"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            command = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{PACKAGE}@{VERSION}"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise BuildError(f"npm did not fetch {PACKAGE} {VERSION} ({error}): put its archive at {archive}") from None
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != SHA512:
        raise BuildError(f"{archive} has the sha512 {found}, expected {SHA512}: remove it and build again")
    with tarfile.open(archive) as package:
        return {name: package.extractfile(f"package/dist/{inside}").read() for name, inside in RUNTIME.items()}  # type: ignore[union-attr]


def export_models() -> dict[str, tuple[dict[str, Any], bytes]]:
    """Return every shipped model by name: what the page must know of it, and its ONNX file."""
    models = {}
    for card in sorted(SHIPPED.glob("*/card.json")):
        name = card.parent.name
        net = load(name)
        with tempfile.TemporaryDirectory() as folder:
            data = export_onnx(net, Path(folder) / "model.onnx").read_bytes()
        space = net.genotype.space
        facts = {"multiple": space.multiple, "bytes_per_pixel": OVERHEAD * bytes_per_pixel(net.genotype)}
        models[name] = {"about": read_json(card)["about"], **facts}, data
    if not models:
        raise BuildError(f"{SHIPPED} holds no model to put on the page")
    return models


def write_page(
    out: Path, runtime: Mapping[str, bytes], models: Mapping[str, tuple[dict[str, Any], bytes]]
) -> dict[str, int]:
    """Write the page into a folder; return its files with their sizes.

    Args:
        out: the folder; files of an earlier page are replaced, others stay.
        runtime, models: as `fetch_runtime` and `export_models` return them.

    Raises:
        BuildError: the page would be larger than LIMIT; it is written all the same, to be looked at.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = {path.name: path.read_bytes() for path in sorted(SOURCES.iterdir()) if path.is_file()}
    listed = []
    for name, (facts, data) in models.items():
        files[f"{name}.onnx.bin"] = gzip.compress(data, mtime=0)
        listed.append({"name": name, "file": f"{name}.onnx.bin", **facts})
    for name, data in runtime.items():
        files[name] = gzip.compress(data, mtime=0) if name.endswith(".bin") else data
    example, credit, source = _example()
    files["example.jpg"] = example
    contents = {"models": listed, "example": {"file": "example.jpg", "credit": credit}}
    files["contents.json"] = json.dumps(contents, indent=1).encode()
    files["CREDITS.txt"] = _credits(credit, source).encode()
    digest = hashlib.sha256(b"".join(name.encode() + hashlib.sha256(data).digest() for name, data in files.items()))
    kept = json.dumps(["./", *(name for name in files if name != "sw.js")], indent=1)
    files["offline.js"] = f"const VERSION = {digest.hexdigest()[:16]!r};\nconst FILES = {kept};\n".encode()
    for name, data in files.items():
        (out / name).write_bytes(data)
    sizes = {name: len(data) for name, data in files.items()}
    if sum(sizes.values()) > LIMIT:
        raise BuildError(f"{out} has {sum(sizes.values())} bytes, more than {LIMIT}: ship fewer or smaller models")
    return sizes


def _example() -> tuple[bytes, str, str]:
    """Return the example under rain as a JPEG, its credit in a line, and where the photograph is from."""
    (scene,) = (scene for scene in open_split("photos").test if scene.name == EXAMPLE)
    with open(PHOTOS / "index.csv", newline="", encoding="utf-8") as file:
        (row,) = (row for row in csv.DictReader(file) if row["file"] == f"{EXAMPLE}.jpg")
    with tempfile.TemporaryDirectory() as folder:
        path = write_image(Path(folder) / "example.jpg", scene.read()[0][scene.labels.index(LEVEL)])
        credit = f"{row['description']}, {row['licence']}, with synthetic rain"
        return Path(path).read_bytes(), credit, f"{row['source_url']}\n{row['author']}\n{row['licence_url']}"


def _credits(credit: str, source: str) -> str:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    terms = licence[licence.index("Permission is hereby") :]
    return (
        f"example.jpg: {credit}\n{source}\n\n"
        f"ort.mjs, ort.wasm.bin: {PACKAGE} {VERSION}\nMIT License. Copyright (c) Microsoft Corporation\n\n"
        f"The page and its networks: manas_lite\n{licence.split('Permission is hereby')[0].strip()}\n\n"
        f"The terms of the MIT License:\n\n{terms}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "build" / "web", help="default: %(default)s")
    parser.add_argument("--archives", type=Path, default=ROOT / "build" / "npm", help="default: %(default)s")
    options = parser.parse_args()
    try:
        sizes = write_page(options.out, fetch_runtime(options.archives), export_models())
    except (BuildError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"{size:>9} {name}")
    print(f"{sum(sizes.values()):>9} bytes in {options.out}: serve it with")
    print(f"python -m http.server --bind 127.0.0.1 --directory {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
