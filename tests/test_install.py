"""The wheel is whole, works outside the clone, and replaces nothing that is already installed."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from project import COLAB, ROOT, all_requirements, lower_bound, requirements, tracked_files


def test_the_full_installation_is_the_same_everywhere_and_leaves_no_test_out() -> None:
    """The lines of Makefile and docs/install.md; without `dask`, say, its tests would be skipped wherever they run."""
    made = re.findall(r"^\$\(VENV\)/installed-dev: EXTRAS = \[(.+)\]$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    told = re.findall(r'-e "\.\[(.+,dev,.+)\]"', (ROOT / "docs" / "install.md").read_text(encoding="utf-8"))
    assert len(made) == 1
    assert told == made * 2
    installed = {requirement.name for requirement in requirements(*made[0].split(","))}
    assert {requirement.name for requirement in all_requirements()} - installed == set()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `pip install .` builds it: in isolation, with the build backend fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        described = archive.read(metadata).decode()
    assert {name.split("/")[0] for name in names} == {"manas_lite", "manas_course"}
    assert {name for name in tracked_files() if name.startswith(("manas_lite/", "manas_course/"))} <= names
    sets = {name for name in tracked_files() if name.startswith("data_scripts/sets/")}
    assert {name.replace("data_scripts/sets", "manas_lite/data/sets") for name in sets} <= names
    assert not any("notebooks" in name for name in names)  # the course is run from a clone, by tools/course
    assert "License-Expression: MIT" in described
    assert wheel.stat().st_size < 10_000_000


@pytest.mark.slow
@pytest.mark.parametrize("extras", ["", "[data,course]"])
@pytest.mark.parametrize("standing", [{}, COLAB], ids=["lower bounds", "colab"])
def test_installing_changes_nothing_that_is_there(
    wheel: Path, tmp_path: Path, extras: str, standing: dict[str, str]
) -> None:
    """Every dependency is there at its lower bound, or at Colab's version; no index to fetch from.

    The dependencies are there as metadata only: that is all pip looks at when it decides what to replace.
    """
    venv.create(tmp_path / "environment", with_pip=True)
    python = tmp_path / "environment" / ("Scripts" if os.name == "nt" else "bin") / "python"
    locate = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(locate, capture_output=True, text=True, check=True).stdout.strip())
    for requirement in requirements("data", "course"):
        version = standing.get(requirement.name, lower_bound(requirement))
        folder = site / f"{requirement.name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {requirement.name}\nVersion: {version}\n")
        (folder / "RECORD").write_text("")

    def frozen() -> set[str]:
        listing = subprocess.run([str(python), "-m", "pip", "freeze"], capture_output=True, text=True, check=True)
        return {line.split(" @ ")[0] for line in listing.stdout.splitlines()}

    before = frozen()
    assert f"torch=={standing.get('torch', '2.5')}" in before
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-index", f"{wheel}{extras}"]
    subprocess.run(install, check=True, cwd=tmp_path)
    assert frozen() - before == {"manas_lite"}
    assert before - frozen() == set()


@pytest.mark.slow
def test_the_wheel_works_outside_the_clone(wheel: Path, tmp_path: Path) -> None:
    """Photographs and every module are found from what was installed, not from the repository."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = (
        "import manas_lite, pathlib, sys\n"
        "assert pathlib.Path(manas_lite.__file__).is_relative_to(sys.argv[1]), manas_lite.__file__\n"
        "from manas_lite.data import open_split\n"
        "from manas_lite.data.registry import data_sets\n"
        "assert 'rain100l' in data_sets()\n"
        "split = open_split('photos', seed=0)\n"
        "rainy, clean = split.test[0].read()\n"
        "print(len(split.train), len(split.val), len(split.test), rainy.shape, clean.shape)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", program, str(tmp_path / "site")]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[0]) > 0
