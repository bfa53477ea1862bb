"""What an import costs, counted in modules: nothing for the package, torch for its names, plots and scipy when used."""

import subprocess
import sys

import pytest

import manas_lite

HEAVY = {"matplotlib", "scipy", "PIL", "tifffile", "requests", "gdown", "seaborn", "IPython", "yaml", "onnxruntime"}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_the_package_itself_loads_nothing():
    assert not loaded_by("import manas_lite") & {*HEAVY, "torch", "numpy"}


def test_the_help_loads_no_torch():
    run = "with contextlib.suppress(SystemExit): main(['--help'])"
    code = f"import contextlib\nfrom manas_lite.__main__ import main\n{run}"
    assert not loaded_by(code) & {*HEAVY, "torch"}


def test_the_methods_names_load_no_plots_no_scipy_and_no_picture_files():
    assert not loaded_by("from manas_lite import Genotype, SearchSpace, SuperNet, bilevel, losses, metrics") & HEAVY


def test_all_stable_names_load_no_plots_and_no_scipy():
    names = ", ".join(name for name in manas_lite.__all__ if name != "draw")
    assert not loaded_by(f"from manas_lite import {names}") & (HEAVY - {"PIL", "tifffile"})


def test_a_command_loads_what_it_needs_and_little_beside_torch():
    """Every command starts with these imports, and most of their time is torch's own."""
    code = "import torch, sys; before = set(sys.modules); import manas_lite.commands; print(*set(sys.modules) - before)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    added = run.stdout.split()
    assert not {name.partition(".")[0] for name in added} & (HEAVY - {"PIL", "tifffile"})
    assert len(added) < 150


def test_names_are_listed_and_a_wrong_one_is_refused():
    assert set(manas_lite.__all__) <= set(dir(manas_lite))
    with pytest.raises(AttributeError, match="has no attribute 'serch'"):
        manas_lite.serch  # noqa: B018
