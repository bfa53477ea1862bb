"""CONTRIBUTING.md keeps its word: its blocks are written to files and run, in a temporary folder, as a reader would."""

import dataclasses
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
import zipfile

import pytest
import tiny
import yaml
from project import ROOT, tracked_files

from manas_lite import Genotype, SearchSpace, losses, search
from manas_lite.__main__ import main
from manas_lite.data import __main__ as data_command
from manas_lite.data import open_split, registry
from manas_lite.networks import modules, ops
from manas_lite.photos.images import read_image, write_image

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```(?:python|yaml|toml)\n# ([^\n]+)\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = [line for line in TEXT.splitlines() if line.startswith("python -m ")]
REGISTRIES = (ops.OPERATIONS, modules.MODULES, losses.DISTANCES, losses.TERMS)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the recipes' own files and a folder `pairs`, to which the process has moved."""
    for name, text in BLOCKS.items():
        if re.fullmatch(r"[\w.]+", name):
            (tmp_path / name).write_text(text, encoding="utf-8")
    for number in range(10):
        clean = tiny.picture(number, 40)
        for part, picture in (("rainy", clean // 2 + 120), ("clean", clean)):
            (tmp_path / "pairs" / part).mkdir(parents=True, exist_ok=True)
            write_image(tmp_path / "pairs" / part / f"{number}.png", picture)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = [dict(each) for each in REGISTRIES]
    yield tmp_path
    restore(before)
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


def restore(before):
    for each, entries in zip(REGISTRIES, before, strict=True):
        each.clear()
        each.update(entries)


def run(start):
    """Run the one command that starts so, with the registries of a fresh process; return its arguments."""
    (line,) = [line for line in COMMANDS if line.startswith(f"python -m {start}")]
    program, *arguments = shlex.split(line.removeprefix("python -m "))
    before = [dict(each) for each in REGISTRIES]
    if program == "manas_lite":
        fewer = ["--set", "steps=3"] if arguments[0] in ("search", "retrain") else []
        assert main([*arguments, *fewer, "--threads", "1"]) == 0
    else:
        assert data_command.main(arguments) == 0
    restore(before)
    return arguments


def test_every_recipe_has_its_blocks():
    own = {"my_operation.py", "my_module.py", "my_loss.py"}
    assert {*own, *(f"test_{name}" for name in own), "whole_way.py", "my_sweep.yaml"} <= BLOCKS.keys()
    assert len(COMMANDS) == 11
    assert TEXT.count("```") == 2 * (len(BLOCKS) + 5)  # five blocks of commands


def test_the_tests_of_the_recipes_pass(here):
    files = sorted(name for name in BLOCKS if name.startswith("test_my_"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True)
    written = sum(BLOCKS[name].count("\ndef test_") for name in files)
    passed = re.search(r"(\d+) passed", done.stdout)  # one that is parametrized counts more than once
    assert passed, done.stdout + done.stderr
    assert int(passed[1]) > written, done.stdout
    assert done.returncode == 0, done.stdout


def test_own_parts_go_the_whole_way_in_python(here):
    found = runpy.run_path("whole_way.py")
    assert found["found"].genotype.space.operations == ("skip_connect", "SE", "ECA")
    assert {"ECA", "inverted"} <= {*ops.OPERATIONS, *modules.MODULES}
    assert (here / "found.png").stat().st_size > 1000
    assert read_image(here / "derained_in_python.png").shape == (40, 40, 3)


def test_own_parts_go_the_whole_way_on_the_command_line(here):
    known = set(ops.OPERATIONS)
    run("manas_lite search --space smoke --data pairs --import my_operation.py")
    manifest = json.loads((here / "runs" / "search" / "manifest.json").read_text())
    assert manifest["space"]["operations"] == ["skip_connect", "SE", "ECA"]
    assert manifest["space"]["modules"] == ["parallel", "fusion", "inverted"]
    assert set(ops.OPERATIONS) == known  # each command imports what it needs
    run("manas_lite retrain")
    run("manas_lite derain")
    assert read_image(here / "derained.png").shape == (40, 40, 3)


def test_an_own_loss_counts_on_the_command_line(here):
    run("manas_lite search --space smoke --data pairs --name own_loss")
    run_folder = here / "runs" / "own_loss"
    loss = json.loads((run_folder / "manifest.json").read_text())["settings"]["loss"]
    assert (loss["external"], loss["terms"]) == ("huber+ssim", {"edges": 0.1})
    log = [json.loads(line) for line in (run_folder / "log.jsonl").read_text().splitlines()]
    steps = [record for record in log if record["kind"] == "step"]
    assert steps
    assert all(record["edges"] > 0 for record in steps)


def test_an_own_loss_is_known_to_sweeps(here):
    pytest.importorskip("papermill", reason="the extra `course` is not installed")
    from tools.course import runner, sources, sweeps

    (here / "elsewhere").mkdir()
    os.chdir(here / "elsewhere")  # what a sweep file imports is relative to the file
    sweep = sweeps.read("../my_sweep.yaml")
    runs = sweep.runs()
    assert [run.arm for run in runs] == ["full", "edges", "huber"]
    for each, wanted in ((runs[1], ["loss.terms.edges=0.1"]), (runs[2], [])):
        notebook = sweeps.contents.find(each.sweep.notebook)
        built = sources.build(notebook, "solution")
        values = runner.settle(notebook, built, "smoke", each.parameters, here)
        assert values.get("settings", []) == wanted
    assert values["external"] == "huber+ssim"


@pytest.mark.slow
def test_an_own_loss_counts_in_notebook_06(here):
    pytest.importorskip("papermill", reason="the extra `course` is not installed")
    from tools.course.__main__ import main as course

    (line,) = [line for line in COMMANDS if line.startswith("python -m tools.course run 06")]
    arguments = shlex.split(line.removeprefix("python -m tools.course "))
    assert course(arguments) == 0
    (result,) = (here / "runs" / "course" / "runs" / "smoke").rglob("ablation/own_loss-*/result-val.json")
    settings = json.loads(result.read_text())["settings"]["settings"]
    assert {"terms.edges=0.1", "external=huber+ssim"} <= set(settings)


# --- data sets ---


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """A copy of the kit's tables of sets with the recipe's rows behind them."""
    folder = tmp_path / "tables"
    shutil.copytree(ROOT / "data_scripts" / "sets", folder)
    for name in ("sets.toml", "archives.toml"):
        with open(folder / name, "a", encoding="utf-8") as file:
            file.write("\n" + BLOCKS[f"data_scripts/sets/{name}"])
    monkeypatch.setattr(registry, "_tables", lambda: folder)
    return folder


def test_a_row_of_the_table_is_a_set_that_can_be_got_opened_and_searched_on(tables, here):
    with zipfile.ZipFile("street-rain.zip", "w") as archive:
        for part, numbers in (("train", range(4)), ("test", range(4, 6))):
            for number in numbers:
                clean = tiny.picture(number, 40)
                pictures = {f"target/{number}.png": clean}
                pictures |= {f"input/{number}_{k}.png": clean // 2 + 60 * k for k in (1, 2)}
                for name, picture in pictures.items():
                    file = here / "made.png"
                    write_image(file, picture)
                    archive.write(file, f"{part}/{name}")
                    file.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of numbers that are not the table's
        run("manas_lite.data get")
        run("manas_lite.data check")
        split = open_split("street-rain", root="sets")
    assert [len(part) for part in (split.train, split.val, split.test)] == [3, 1, 2]
    assert {len(scene.rainy) for scene in split.train} == {2}
    settings = dataclasses.replace(tiny.SEARCH, epochs=2, steps=1, rains=2, eigenvalue_every=0)
    found = search(tiny.SPACE, split, settings, runs_dir=here / "runs", progress=False)
    assert isinstance(found.genotype, Genotype)


def test_every_key_of_the_tables_is_explained():
    recipe = TEXT.partition("## Recipe 3")[2].partition("## Recipe 4")[0]
    keys = {key for row in re.findall(r"^\| (`.*?) \|", recipe, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}
    keys |= {"drive"} if "or `drive`" in recipe else set()
    fields = {field.name for kind in (registry.DataSet, registry.Archive) for field in dataclasses.fields(kind)}
    assert keys == fields - {"name"}


# --- what is changed in the kit itself: a copy of the clone ---


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the clone with the recipes' changes in it."""
    folder = tmp_path_factory.mktemp("clone")
    needed = (
        "manas_lite/",
        "manas_course/",
        "tools/",
        "notebooks/",
        "tests/",
        "scripts/",
        "results/mutation/",
        "docs/",
        "data_scripts/",
        "figures/notebooks/",
        "pyproject.toml",
    )
    for name in tracked_files():
        if name.startswith(needed):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)

    def edit(name, pattern, text):
        file = folder / name
        changed, count = re.subn(pattern, lambda match: match[0] + text, file.read_text(encoding="utf-8"), count=1)
        assert count == 1, f"{name} has no place like {pattern}"
        file.write_text(changed, encoding="utf-8")

    setting, checker, wrong = "a field of LossSettings", "a checker", "entries of WRONG"
    edit("manas_lite/losses.py", r'loss\.terms\.NAME=0\.1\."""\n', "\n" + BLOCKS[f"manas_lite/losses.py: {setting}"])
    checks = f"manas_course/checks/imaging.py: {checker}"
    edit("manas_course/checks/imaging.py", r"(?s).*\Z", "\n\n" + BLOCKS[checks])
    edit("manas_course/checks/imaging.py", r"__all__ = \[", '"added_light", ')
    edit("tests/course/answers.py", r"(?m)^WRONG.*\{\n", BLOCKS[f"tests/course/answers.py: {wrong}"])
    for kind in ("sets", "archives"):
        edit(f"data_scripts/sets/{kind}.toml", r"(?s).*\Z", "\n" + BLOCKS[f"data_scripts/sets/{kind}.toml"])
    edit("tests/course/answers.py", r"(?m)^RIGHT = \{\n", BLOCKS["tests/course/answers.py: entries of RIGHT"])
    with open(folder / "notebooks" / "course.yaml", "a", encoding="utf-8") as file:
        file.write("\n" + BLOCKS["notebooks/course.yaml"])
    source = "notebooks/sources/12_brightness.py"
    (folder / source).write_text(BLOCKS[source], encoding="utf-8")
    return folder


def in_clone(clone, *command, ok=True):
    environment = {**os.environ, "PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=clone, env=environment, capture_output=True, text=True, timeout=600
    )
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_setting_is_a_field_and_a_row_of_the_table(clone):
    assert "loss.tv_from=0" in in_clone(clone, "-m", "manas_lite", "search", "--help")
    space = SearchSpace.preset("smoke")
    program = (
        "from manas_lite.losses import LossSettings; from manas_lite.runs.settings import to_dict\n"
        "from manas_lite import Genotype, SearchSpace\n"
        "assert 'tv_from' not in to_dict(LossSettings()) and to_dict(LossSettings(tv_from=3))['tv_from'] == 3\n"
        f"assert Genotype.hand_made(SearchSpace.preset('smoke')).id == {Genotype.hand_made(space).id!r}\n"
    )
    in_clone(clone, "-c", program)
    assert "tv_from" in in_clone(clone, "scripts/hyperparameters.py", ok=False)
    script = clone / "scripts" / "hyperparameters.py"
    text = script.read_text(encoding="utf-8")
    row = re.search(r'    "terms": \(.*\n', text)
    assert row is not None
    script.write_text(text.replace(row[0], f'{row[0]}    "tv_from": ("–", "for a recipe"),\n'), encoding="utf-8")
    in_clone(clone, "scripts/hyperparameters.py")
    assert "| `tv_from` |" in (clone / "docs" / "hyperparameters.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_notebook_is_stamped_run_graded_and_keeps_the_contract(clone):
    pytest.importorskip("papermill", reason="the extra `course` is not installed")
    for line in COMMANDS:
        if line.startswith(tuple(f"python -m tools.course {do}" for do in ("stamp", "run 12", "picture 12"))):
            in_clone(clone, *shlex.split(line)[1:])
    assert in_clone(clone, "-m", "tools.course", "stamp", "--check") == ""
    notebook = clone / "notebooks" / "12_brightness.ipynb"
    assert "your turn" in notebook.read_text(encoding="utf-8")
    assert "[12 Brightness]" in (clone / "notebooks" / "README.md").read_text(encoding="utf-8")

    (clone / "handed_in").mkdir()
    shutil.copy(notebook, clone / "handed_in" / "blank.ipynb")
    shutil.copy(clone / "runs" / "course" / "12_brightness.ipynb", clone / "handed_in" / "solved.ipynb")
    in_clone(clone, "-m", "tools.course", "grade", "handed_in", "--csv", "grades.csv")
    rows = [line.split(",")[:3] for line in (clone / "grades.csv").read_text().splitlines()[1:]]
    for name, mark in (("blank.ipynb", "0"), ("solved.ipynb", "1")):
        given = [row[1:] for row in rows if row[0] == name]
        assert given == [[exercise, mark] for exercise in ("added_light", "psnr_rgb", "gain")]

    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "12_brightness or added_light"]
    files = (f"tests/course/test_{name}.py" for name in ("contract", "exercises", "pictures"))
    told = in_clone(clone, *command, *files)
    passed = re.search(r"(\d+) passed", told)
    assert passed, told
    assert int(passed[1]) >= 12, told
    assert "failed" not in told


@pytest.mark.slow
def test_a_set_of_the_kit_asks_for_its_numbers_and_its_row_in_the_documentation(clone):
    """Of the tests of the tables, those two fail that hold them equal to what is written beside them, and no other."""
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not wheel", "tests/data/test_registry.py"]
    told = in_clone(clone, *command, ok=False)
    failed = set(re.findall(r"FAILED tests/data/test_registry.py::(\w+)", told))
    assert failed == {"test_documentation_lists_every_set_with_its_command", "test_every_published_set_has_its_row"}, (
        told
    )


def test_what_the_page_names_is_there():
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT):
        assert "://" in target or (ROOT / target).exists(), target
    for name in re.findall(r"`((?:manas_lite|manas_course|tests|scripts|docs|notebooks|data_scripts)/[\w./]+)`", TEXT):
        assert (ROOT / name).exists(), name
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", TEXT, re.MULTILINE):
        assert f"\n{target}:" in makefile, target


# --- the other pages about the repository ---


def test_the_readme_lists_every_folder():
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What is where")[2]
    listed = re.findall(r"^([\w.]+)/ +\S", text.partition("```\n")[2].partition("```")[0], re.MULTILINE)
    assert sorted(listed) == sorted({name.partition("/")[0] for name in tracked_files() if "/" in name})


def test_the_changelog_says_where_each_module_went():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(manas_lite/[\w/]+\.py)` \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) > 60
    for before, now in rows:
        assert not (ROOT / before).exists(), before
        for path in re.findall(r"`((?:manas_lite|manas_course|tools)/[\w/]+\.py)`", now):
            assert (ROOT / path).is_file(), f"{before} went to {path}, which is not there"


def test_hooks_fetch_nothing():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")
