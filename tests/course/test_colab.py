"""What Colab holds (late 2026): the widgets under ipywidgets 7.7.1 and IPython 7.34; the set-up cell with a wheel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from manas_lite.course import registry, sources

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def colab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Colab's versions, to stand before those of this environment."""
    folder = tmp_path_factory.mktemp("colab")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    subprocess.run([*command, "ipywidgets==7.7.1", "ipython==7.34.0", "ipykernel==6.17.1"], check=True)
    return folder


@pytest.mark.slow
def test_widgets_under_colabs_versions(colab: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(colab)}
    versions = "import ipywidgets, IPython; print(ipywidgets.__version__, IPython.__version__)"
    shown = subprocess.run(
        [sys.executable, "-c", versions], env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == ["7.7.1", "7.34.0"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "test_widgets.py")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=HERE)
    assert result.returncode == 0, result.stdout[-3000:]
    assert "skipped" not in result.stdout


def test_set_up_cell_is_silent_and_installs_nothing_where_the_package_is(capfd: pytest.CaptureFixture[str]) -> None:
    (cell,) = [c for c in sources.build(registry.notebooks()[0]).cells if "setup" in sources.tags(c)]
    result = subprocess.run([sys.executable, "-c", cell.source], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")


def test_set_up_cell_asks_pip_for_this_package_alone(tmp_path: Path) -> None:
    """Where the package is missing: one pip call, quiet, nothing else named, so that nothing else can be replaced."""
    (cell,) = [c for c in sources.build(registry.notebooks()[0]).cells if "setup" in sources.tags(c)]
    program = (
        "import importlib.util, subprocess\n"
        "importlib.util.find_spec = lambda name: None\n"
        "subprocess.run = lambda command, check: print(command[1:])\n" + cell.source
    )
    environment = {**os.environ, "MANAS_LITE_PACKAGE": "some.whl"}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout.strip() == "['-m', 'pip', 'install', '--quiet', 'some.whl']"
