"""Exact pins in one place, lower bounds in the other, and nothing between them left to chance."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from project import COLAB, PROJECT, ROOT, all_requirements

FROM_TORCH = re.compile(r"(nvidia|cuda|triton)\b")  # what a CUDA build of torch brings and pins itself


@pytest.fixture
def pin_files(tmp_path: Path) -> Path:
    """A copy of the pin script and of the three files it holds equal, to spoil at will."""
    for name in ("pyproject.toml", "constraints.txt", "environment.yml", "scripts/pins.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def check_pins(root: Path) -> subprocess.CompletedProcess[str]:
    script = root / "scripts" / "pins.py"
    return subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)


def spoil(path: Path, pattern: str, replacement: str) -> None:
    before = path.read_text(encoding="utf-8")
    after, count = re.subn(pattern, replacement, before, count=1, flags=re.MULTILINE)
    assert count == 1
    path.write_text(after, encoding="utf-8")


def test_pyproject_constraints_and_environment_agree(pin_files: Path) -> None:
    result = check_pins(pin_files)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "message"),
    [
        ("constraints.txt", r"^numpy==.*\n", "", "numpy is in pyproject.toml but has no pin"),
        ("constraints.txt", r"^numpy==.*$", "numpy==1.0", "does not satisfy pyproject.toml's numpy"),
        ("constraints.txt", r"^numpy==", "numpy>=", "no exact pin"),
        (
            "environment.yml",
            r"torch==[\d.]+",
            "torch==1.0",
            "environment.yml is not what constraints.txt makes",
        ),
        ("environment.yml", r"^.*torch==.*\n", "", "environment.yml is not what constraints.txt makes"),
        ("pyproject.toml", r'"numpy>=.*"', '"numpy>=1000"', "does not satisfy pyproject.toml's numpy"),
        ("pyproject.toml", r'"numpy>=', '"unpinned-thing>=1", "numpy>=', "unpinned-thing is in pyproject"),
    ],
)
def test_a_disagreement_between_pins_is_found(
    pin_files: Path, name: str, pattern: str, replacement: str, message: str
) -> None:
    spoil(pin_files / name, pattern, replacement)
    result = check_pins(pin_files)
    assert result.returncode == 1
    assert message in result.stderr


def test_environment_pins_torch_and_installs_the_package() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert "torch==2.13.0" in pip
    assert pip[-1] == "--editable ."


def test_everything_that_gets_installed_has_a_pin() -> None:
    """Follows the requirements of what is installed here, so that no indirect dependency floats."""
    pinned = set()
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pinned.add(canonicalize_name(Requirement(line).name))
    waiting = [canonicalize_name(requirement.name) for requirement in all_requirements()]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or FROM_TORCH.match(name):
            continue
        seen.add(name)
        try:
            wanted = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that is not installed here: its own name is checked all the same
        for line in wanted:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requirement.name))
    assert len(seen) > len(all_requirements()), "the walk found no indirect dependency: is anything installed?"
    assert seen - pinned == set()


def test_metadata_has_lower_bounds_only() -> None:
    for requirement in all_requirements():
        assert requirement.url is None, requirement
        assert [specifier.operator for specifier in requirement.specifier] == [">="], requirement
    assert PROJECT["requires-python"] == ">=3.11"
    offered = {line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if "Python :: 3." in line}
    assert offered == {"3.11", "3.12", "3.13"}


def test_metadata_admits_colab() -> None:
    declared = {requirement.name: requirement for requirement in all_requirements()}
    for name, version in COLAB.items():
        assert declared[name].specifier.contains(version), f"{declared[name]} shuts out Colab's {version}"
