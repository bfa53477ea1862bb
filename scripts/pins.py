"""One source of pins: pyproject.toml -> constraints.txt -> environment.yml.

    python scripts/pins.py            write environment.yml from constraints.txt
    python scripts/pins.py --check    change nothing; exit 1 when the three files disagree
    python scripts/pins.py --resolve  first bring constraints.txt up to pyproject.toml (`pip install uv`);
                                      pins stay where they still fit, `--upgrade` moves them all

constraints.txt is one resolution that holds for Python 3.11 to 3.13 on Linux, macOS and Windows: where a
dependency exists on some of them only, its line carries the marker. The CUDA packages are left out on
purpose: every torch build names its own exactly, and pinning them would shut out the other builds.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
ENVIRONMENT = ROOT / "environment.yml"
OLDEST_PYTHON = "3.11"
PYTHON_RANGE = ">=3.11,<3.14"
LEFT_TO_TORCH = re.compile(r"(nvidia|cuda|triton)\b")
CONSTRAINTS_HEADER = """\
# Exact versions for this repository (the package itself has lower bounds only, see pyproject.toml).
# Written by `python scripts/pins.py --resolve`; environment.yml is made from this file.
"""
ENVIRONMENT_HEADER = """\
# Written by `python scripts/pins.py` from constraints.txt: edit neither by hand.
#   conda env create -f environment.yml && conda activate manas-lite
"""


def declared() -> dict[str, Requirement]:
    """Every dependency that pyproject.toml names, extras included, by canonical name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    requirements = [Requirement(line) for group in groups for line in group]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def pin_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins() -> dict[str, Requirement]:
    """Every pin of constraints.txt by canonical name."""
    requirements = [Requirement(line) for line in pin_lines(CONSTRAINTS.read_text(encoding="utf-8"))]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def environment_text() -> str:
    """environment.yml as constraints.txt has it: conda brings Python and pip, pip brings the rest."""
    lines = ["name: manas-lite", "channels:", "  - conda-forge", "dependencies:"]
    lines += [f"  - python{PYTHON_RANGE}", "  - pip", "  - pip:"]
    for pin in pin_lines(CONSTRAINTS.read_text(encoding="utf-8")):
        lines.append(f'      - "{pin}"')
    lines.append("      - --editable .")
    return ENVIRONMENT_HEADER + "\n".join(lines) + "\n"


def problems() -> Iterator[str]:
    """What keeps the three files from agreeing, one sentence each."""
    pinned = pins()
    for name, requirement in declared().items():
        if name not in pinned:
            yield f"{name} is in pyproject.toml but has no pin: run `python scripts/pins.py --resolve`"
            continue
        version = exact_version(pinned[name])
        if version is not None and not requirement.specifier.contains(version, prereleases=True):
            yield f"the pin {pinned[name]} does not satisfy pyproject.toml's {requirement}"
    for pin in pinned.values():
        if exact_version(pin) is None:
            yield f"constraints.txt: {pin} is no exact pin, expected name==version"
    if not ENVIRONMENT.is_file() or ENVIRONMENT.read_text(encoding="utf-8") != environment_text():
        yield "environment.yml is not what constraints.txt makes: run `python scripts/pins.py`"


def exact_version(pin: Requirement) -> str | None:
    specifiers = list(pin.specifier)
    exact = len(specifiers) == 1 and specifiers[0].operator == "==" and "*" not in specifiers[0].version
    return specifiers[0].version if exact else None


def resolve(upgrade: bool) -> None:
    """Let uv resolve pyproject.toml for all Pythons and systems at once; rewrite constraints.txt."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "constraints.txt"
        if CONSTRAINTS.is_file() and not upgrade:
            output.write_bytes(CONSTRAINTS.read_bytes())
        command = ["uv", "pip", "compile", "--universal", f"--python-version={OLDEST_PYTHON}", "--all-extras"]
        command += ["--fork-strategy=fewest", "--no-header", "--no-annotate", "--quiet"]
        try:
            subprocess.run([*command, f"--output-file={output}", str(ROOT / "pyproject.toml")], check=True)
        except FileNotFoundError:
            sys.exit("uv was not found: `pip install uv`, then run this again")
        kept = [line for line in pin_lines(output.read_text(encoding="utf-8")) if not LEFT_TO_TORCH.match(line)]
    CONSTRAINTS.write_text(CONSTRAINTS_HEADER + "\n".join(kept) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep pyproject.toml and the pinned files equal.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when they disagree")
    parser.add_argument("--resolve", action="store_true", help="first resolve pyproject.toml anew, with uv")
    parser.add_argument("--upgrade", action="store_true", help="with --resolve: take the newest versions")
    arguments = parser.parse_args()
    if arguments.resolve and not arguments.check:
        resolve(arguments.upgrade)
    if not arguments.check:
        ENVIRONMENT.write_text(environment_text(), encoding="utf-8")
    found = list(problems())
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
