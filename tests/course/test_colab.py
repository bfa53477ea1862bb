"""What Colab holds (late 2026): the widgets under ipywidgets 7.7.1 and IPython 7.34; the set-up cell with a wheel."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from project import ROOT

from tools.course import contents, sources

HERE = Path(__file__).resolve().parent
COLABS = ("ipywidgets==7.7.1", "ipython==7.34.0", "ipykernel==6.17.1", "gdown==5.2.2")
ABSENT = ("manas_lite", "_editable_impl_manas_lite", "papermill", "nbval", "jupytext")


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
    (cell,) = [c for c in sources.build(contents.notebooks()[0]).cells if "setup" in sources.tags(c)]
    result = subprocess.run([sys.executable, "-c", cell.source], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")


def test_set_up_cell_asks_pip_for_this_package_alone(tmp_path: Path) -> None:
    """Where the package is missing: one pip call, quiet, nothing else named, so that nothing else can be replaced."""
    (cell,) = [c for c in sources.build(contents.notebooks()[0]).cells if "setup" in sources.tags(c)]
    program = (
        "import importlib.util, subprocess\n"
        "importlib.util.find_spec = lambda name: None\n"
        "done = subprocess.CompletedProcess([], 0)\n"
        "subprocess.run = lambda command, **options: print(command[1:]) or done\n" + cell.source
    )
    environment = {**os.environ, "MANAS_LITE_PACKAGE": "some.whl"}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout.strip() == "['-m', 'pip', 'install', '--quiet', 'some.whl']"


def set_up_without_the_package(folder: Path, first: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the set-up cell in a folder of its own, where the package is missing and pip only says what it was asked."""
    (cell,) = [c for c in sources.build(contents.notebooks()[0]).cells if "setup" in sources.tags(c)]
    program = f"import importlib.util\nimportlib.util.find_spec = lambda name: None\n{first}\n{cell.source}"
    own = {name: value for name, value in os.environ.items() if name != "MANAS_LITE_PACKAGE"} | environment
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=own, cwd=folder)


def test_set_up_cell_without_an_address_takes_a_wheel_beside_it_or_says_how(tmp_path: Path) -> None:
    asked = "import subprocess\nok = subprocess.CompletedProcess([], 0)\n"
    asked += "subprocess.run = lambda command, **options: print(command[-1]) or ok\n"
    missing = set_up_without_the_package(tmp_path, asked)
    assert missing.returncode == 1
    assert missing.stderr.startswith("The package is missing: put its wheel")
    assert len(missing.stderr.splitlines()) == 1
    for version in ("0.1.0", "0.2.0"):
        (tmp_path / f"manas_lite-{version}-py3-none-any.whl").touch()
    assert set_up_without_the_package(tmp_path, asked).stdout == "manas_lite-0.2.0-py3-none-any.whl\n"
    colab = "import sys, types\nfiles = types.SimpleNamespace(upload=lambda: {'up.whl': b''})\n"
    colab += "sys.modules['google.colab'] = types.SimpleNamespace(files=files)\n"
    (tmp_path / "empty").mkdir()
    assert set_up_without_the_package(tmp_path / "empty", asked + colab).stdout == "up.whl\n"


def test_set_up_cell_that_cannot_reach_its_address_says_so_in_one_line(tmp_path: Path) -> None:
    done = set_up_without_the_package(tmp_path, MANAS_LITE_PACKAGE="http://127.0.0.1:9/manas_lite-1-py3-none-any.whl")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "was not installed" in done.stderr
    assert "check the network" in done.stderr


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment as near to Colab's as installs here: its ipywidgets, IPython, ipykernel and gdown; no
    papermill, nbval, jupytext or manas_lite; torch and the rest are those of this environment, linked."""
    folder = tmp_path_factory.mktemp("colab") / "environment"
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *COLABS], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    seen = folder / "seen"
    seen.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(ABSENT):
            (seen / entry.name).symlink_to(entry)
    (site / "zz_seen.pth").write_text(f"{seen}\n")  # after its own packages
    return python


@pytest.mark.slow
def test_a_badges_notebook_runs_where_only_the_wheel_was_installed(machine: Path, tmp_path: Path) -> None:
    """From a click on the badge: set-up cell, every cell of the student's notebook, and nothing that stood there moved.

    Notebook 02 trains nothing and touches all of the package that a reader needs: networks, drawings, widgets, checks.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    environment |= {"MANAS_LITE_PACKAGE": str(wheel), "JUPYTER_PATH": str(tmp_path / "share" / "jupyter")}

    def inside(*command: str) -> str:
        run = [str(machine), *command]
        done = subprocess.run(run, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=540)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    held = (
        "import importlib.metadata as m, importlib.util as u, json; print(json.dumps([u.find_spec('manas_lite') is None"
        ", {n: m.version(n) for n in ('torch', 'numpy', 'matplotlib', 'ipywidgets', 'ipython', 'gdown')}]))"
    )
    absent, before = json.loads(inside("-c", held))
    assert absent
    assert (before["ipywidgets"], before["ipython"], before["gdown"]) == ("7.7.1", "7.34.0", "5.2.2")

    cells = [cell.source for cell in sources.build(contents.find("02"), "student").cells if cell.cell_type == "code"]
    (tmp_path / "cells.json").write_text(json.dumps(cells))
    program = (
        "import json\nfrom IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "for source in json.load(open('cells.json')):\n"
        "    result = shell.run_cell(source)\n"
        "    result.raise_error()\n"
        "    if type(result.result).__name__ == 'Check':\n        print('checked', result.result.message)\n"
    )
    shown = inside("-c", program)
    assert shown.count("checked the blank is not filled in yet") == len(contents.find("02").exercises)
    assert "(installed)" in shown  # not the clone
    present, after = json.loads(inside("-c", held))
    assert not present
    assert after == before
