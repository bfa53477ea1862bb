"""Do the lowest and the newest versions that pyproject.toml allows work? Installs each and runs a few tests there.

    python scripts/bounds.py                  the lowest, then the newest (`pip install uv` first)
    python scripts/bounds.py --only lowest    one of them

The environments are build/bounds-lowest and build/bounds-newest. torch stays at the pinned build for processors, since
an older one brings gigabytes. What was installed goes to results/reliability/bounds.csv once the tests have passed.
"""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "results" / "reliability" / "bounds.csv"
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
EXTRAS = ("course", "data", "dask", "downstream", "heic", "video")
TESTERS = ("pytest", "hypothesis", "packaging", "scikit-image")  # of the extra `dev`, with its bounds
TESTS = (
    *("test_imports", "test_images", "test_rain", "test_checkpoint", "test_record", "test_draw", "test_video"),
    *("data/test_unpack", "data/test_download", "course/test_sweeps", "downstream/test_boxes"),
)


def declared(*extras: str) -> list[str]:
    """Return the requirements of the package and of extras, as pyproject.toml writes them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *(line for name in extras for line in project["optional-dependencies"][name])]


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def install_and_test(which: str) -> dict[str, str]:
    """Return the installed version of each declared package, after the tests have passed with it."""
    place = ROOT / "build" / f"bounds-{which}"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(place)], check=True)
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    torch = re.search(r"^torch==[^ ;\n]*", pins, re.MULTILINE)
    assert torch is not None
    testers = [line for line in declared("dev") if name_of(line) in TESTERS]
    # By pip, which knows where this machine takes torch from; uv then leaves it as it is.
    subprocess.run([sys.executable, "-m", "pip", "--python", str(place), "install", "--quiet", torch[0]], check=True)
    wanted = [torch[0], *testers, "-e", f"{ROOT}[{','.join(EXTRAS)}]"]
    install = [*uv, "pip", "install", "--quiet", "--python", str(place), "--resolution", RESOLUTIONS[which]]
    subprocess.run([*install, *wanted], check=True)
    python = str(place / "bin" / "python")
    tests = [f"tests/{name}.py" for name in TESTS]
    subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    command = [*uv, "pip", "list", "--python", str(place), "--format", "json"]
    listed = subprocess.run(command, check=True, capture_output=True, encoding="utf-8")
    versions = {name_of(entry["name"]): entry["version"] for entry in json.loads(listed.stdout)}
    return {name: versions[name] for name in sorted({name_of(line) for line in declared(*EXTRAS)}) if name in versions}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=RESOLUTIONS)
    options = parser.parse_args()
    rows: dict[str, dict[str, str]] = {}
    if TABLE.exists():
        with open(TABLE, newline="", encoding="utf-8") as file:
            rows = {row["package"]: row for row in csv.DictReader(file)}
    for which in [options.only] if options.only else RESOLUTIONS:
        for name, version in install_and_test(which).items():
            rows.setdefault(name, {"package": name, "lowest": "", "newest": ""})[which] = version
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        with open(TABLE, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, ("package", "lowest", "newest"), lineterminator="\n")
            table.writeheader()
            table.writerows(rows[name] for name in sorted(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
