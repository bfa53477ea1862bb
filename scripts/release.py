"""Make a release and try it: sdist and wheel, checked, installed into clean environments, and used there.

    python scripts/release.py              with each Python of this machine that the package supports
    python scripts/release.py --check      only whether all files name one version; builds nothing

The version stands in `manas_lite/__init__.py`. A release needs a section of that version in CHANGELOG.md. What was
done is kept in `build/release`; the same command goes on where it stopped, and does again what another build would
change. In each environment, which lies outside the clone, the wheel is installed with its pinned dependencies, then the
sdist in its place. Each must tell its version and derain a photograph that it brings.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
TRY = """
import json, pathlib, sys
import numpy as np
from PIL import Image
import manas_lite
folder = pathlib.Path(manas_lite.__file__).parent
assert folder.is_relative_to(sys.prefix), f"{folder} is not in the environment {sys.prefix}"
photo = sorted((folder / "assets" / "photos").glob("*.jpg"))[0]
from manas_lite.__main__ import main
assert main(["derain", str(photo), "derained.png", "--overwrite"]) in (0, None)
before, after = (np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in (photo, "derained.png"))
assert before.shape == after.shape, (before.shape, after.shape)
change = np.abs(before - after).mean()
assert 0 < change < 30, change
print(f"derained {photo.name}: {after.shape[1]} x {after.shape[0]} pixels, changed by {change:.2f} of 255")
"""


class ReleaseError(RuntimeError):
    """No release can be made; the message says what to do."""


# --- one version ----------------------------------------------------------------------------------------------


def version_of(root: Path) -> str:
    """Return the version that the package states."""
    text = (root / "manas_lite" / "__init__.py").read_text(encoding="utf-8")
    found = re.findall(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if len(found) != 1:
        raise ReleaseError("manas_lite/__init__.py has no single line `__version__ = ...`")
    return found[0]


def problems(root: Path, *, released: bool) -> Iterator[str]:
    """Yield what keeps the files from naming one version, a sentence each.

    Args:
        root: the clone.
        released: whether CHANGELOG.md must have a section of this version that is newer than all others.
    """
    version = version_of(root)
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if "version" in project or "version" not in project.get("dynamic", []):
        yield 'pyproject.toml states a version of its own: write `dynamic = ["version"]` instead'
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    zenodo = json.loads((root / ".zenodo.json").read_text(encoding="utf-8"))
    for name, stated in (("CITATION.cff", citation["version"]), (".zenodo.json", zenodo["version"])):
        if str(stated) != version:
            yield f"{name} states version {stated}, the package {version}: write {version}"
    if zenodo["title"] != citation["title"]:
        yield f".zenodo.json has the title {zenodo['title']!r}, CITATION.cff {citation['title']!r}"
    if not citation["license"].lower() == zenodo["license"].lower() == project["license"].lower():
        yield "CITATION.cff, .zenodo.json and pyproject.toml name different licences"
    cited = [reference["doi"] for reference in citation["references"]]
    related = [entry["identifier"] for entry in zenodo["related_identifiers"]]
    if missing := set(cited) - set(related):
        yield f".zenodo.json does not relate to {', '.join(sorted(missing))}, which CITATION.cff refers to"
    sections = re.findall(r"^## (.+)$", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    versions = [section.split()[0] for section in sections if section != "Unreleased"]
    if released and (not versions or versions[0] != version or "Unreleased" in sections):
        yield f"CHANGELOG.md begins with {sections[:1]}: name its first section `## {version}`, or raise the version"
    elif not released and version not in versions:
        yield f"CHANGELOG.md has no section `## {version}`"


# --- building and trying ------------------------------------------------------------------------------------------


def call(command: Sequence[str | Path], where: Path = ROOT) -> str:
    """Run a program and return what it printed.

    Raises:
        ReleaseError: the program failed; the message holds the end of what it printed.
    """
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([*map(str, command)], cwd=where, env=clean, capture_output=True, encoding="utf-8")
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ReleaseError(f"`{' '.join(map(str, command[:6]))}` failed:\n{tail}")
    return done.stdout


def interpreters(wanted: Sequence[str]) -> dict[str, Path]:
    """Return the program of each wanted version of Python that is found on the path, with pyenv or with uv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = {}
    for version in wanted:
        places = [path / "bin" / "python" for path in pyenv.glob(f"{version}.*")]
        places += [Path(program) for program in (shutil.which(f"python{version}"),) if program]
        if uv := shutil.which("uv"):
            told = subprocess.run([uv, "python", "find", "--offline", version], capture_output=True, encoding="utf-8")
            places += [Path(told.stdout.strip())] if told.returncode == 0 else []
        for place in places:
            asked = subprocess.run(
                [place, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                capture_output=True,
                encoding="utf-8",
            )
            if asked.stdout.strip() == version:
                found[version] = place
                break
    return found


def build(out: Path) -> list[Path]:
    """Build the wheel and the sdist of the clone, let twine judge them, and return their paths, the wheel first."""
    shutil.rmtree(out, ignore_errors=True)
    call([sys.executable, "-m", "build", "--outdir", out, ROOT])
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    call([sys.executable, "-m", "twine", "check", "--strict", wheel, sdist])
    return [wheel, sdist]


def pinned_torch(root: Path) -> str:
    """Return what pip is asked for where nobody names another build of torch."""
    (pin,) = re.findall(r"(?m)^torch==[^ ;\n]+", (root / "constraints.txt").read_text(encoding="utf-8"))
    return pin


def source_digest() -> str:
    """Return a digest of all tracked files as they are now: what the built files are made from."""
    listed = call(["git", "ls-files", "-z"]).split("\0")
    digest = hashlib.sha256()
    for name in sorted(filter(None, listed)):
        path = ROOT / name
        digest.update(name.encode() + b"\0" + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


def try_out(python: Path, files: Sequence[Path], torch: str, version: str) -> Iterator[str]:
    """Install each file into one clean environment and use it there; yield what was seen, a line for each file.

    Raises:
        ReleaseError: an installation or a try failed.
    """
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        place = Path(folder)
        call([python, "-m", "venv", place / "env"])
        programs = place / "env" / ("Scripts" if os.name == "nt" else "bin")
        pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
        (place / "pins.txt").write_text(re.sub(r"(?m)^torch==.*\n", "", pins), encoding="utf-8")
        pip = [programs / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        call([*pip, *torch.split()])
        for file in files:
            call([*pip, "--force-reinstall", "--no-deps", file])
            call([*pip, "-c", place / "pins.txt", file])  # and what it needs, where that is missing yet
            call([*pip[:4], "check"])
            told = call([programs / "manas-lite", "--version"], place).split()[-1]
            if told != version:
                raise ReleaseError(f"{file.name} tells version {told}, expected {version}")
            yield f"{file.name}: {call([programs / 'python', '-c', TRY], place).strip().splitlines()[-1]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only whether all files name one version")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the built files (default: dist)")
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "release", help="what was done (default: there)")
    parser.add_argument("--torch", default="", help="what pip is asked for first (default: the pinned version)")
    parser.add_argument("--python", nargs="+", default=["3.11", "3.12", "3.13"], metavar="X.Y", help="versions to try")
    options = parser.parse_args()
    try:
        release(options)
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def release(options: argparse.Namespace) -> None:
    """Do what the command line asks for, as far as it is not done yet."""
    found = list(problems(ROOT, released=not options.check))
    if found:
        raise ReleaseError("\n".join(found))
    version = version_of(ROOT)
    if options.check:
        print(f"version {version} everywhere")
        return
    record = options.state / "state.json"
    digest = source_digest()
    state = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    if state.get("source") != digest or not all(Path(name).is_file() for name in state["files"]):
        state = {"source": digest, "files": [str(path) for path in build(options.out)], "tried": {}}
        _keep(record, state)
    print("\n".join(state["files"]))
    torch = options.torch or pinned_torch(ROOT)
    pythons = interpreters(options.python)
    for name in options.python:
        if name not in pythons:
            print(f"Python {name}: not on this machine, not tried")
            continue
        if name not in state["tried"]:
            state["tried"][name] = list(try_out(pythons[name], [Path(file) for file in state["files"]], torch, version))
            _keep(record, state)
        print("\n".join(f"Python {name}: {line}" for line in state["tried"][name]), flush=True)


def _keep(record: Path, state: dict[str, object]) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    written = record.with_suffix(".new")
    written.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    os.replace(written, record)


if __name__ == "__main__":
    sys.exit(main())
