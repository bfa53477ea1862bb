"""The repository keeps its promises: imports declared, names without clashes, make and README as they say."""

import ast
import importlib
import importlib.metadata
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
import types
import warnings
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from packaging.utils import canonicalize_name
from PIL import Image
from project import PROJECT, ROOT, all_requirements, requirements, tracked_files

import manas_course
import manas_lite

PACKAGES = (manas_lite, manas_course)
FOLDERS = ("manas_lite", "manas_course", "tools", "scripts", "tests")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

# What the standard library lost between 3.11 and 3.13 ("What's new in Python", sections Removed).
REMOVED_MODULES = set(
    """asynchat asyncore distutils imp smtpd aifc audioop cgi cgitb chunk crypt imghdr lib2to3 mailcap msilib
    nis nntplib ossaudiodev pipes sndhdr spwd sunau telnetlib uu xdrlib""".split()  # noqa: SIM905
)


# --- the source -----------------------------------------------------------------------------------


def imported_names(nodes: Iterable[ast.AST]) -> set[str]:
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"manas_lite", "manas_course", "tools"}


def test_every_import_of_the_package_is_declared() -> None:
    """At the top of a module only core dependencies; inside functions those of the extras too."""
    provider = importlib.metadata.packages_distributions()
    core = {canonicalize_name(requirement.name) for requirement in requirements()}
    anything = {canonicalize_name(requirement.name) for requirement in all_requirements()}
    undeclared = []
    for path in (path for package in ("manas_lite", "manas_course") for path in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for nodes, allowed in ((tree.body, core), (ast.walk(tree), anything)):
            for name in imported_names(nodes):
                distributions = {canonicalize_name(each) for each in provider.get(name, [name])}
                if not distributions & allowed:
                    undeclared.append(f"{path.relative_to(ROOT)} imports {name}")
    assert undeclared == []


def test_nothing_is_required_that_the_package_does_not_import() -> None:
    """What the tests alone need is `dev`, and what the course's pages need is `site`. The tools are programs, or are
    imported by those that the package imports."""
    tools = {"ipykernel", "jupyterlab", "nbclient", "nbval", "onnx", "onnxscript", "tensorboard"}
    provider = importlib.metadata.packages_distributions()
    imported = set()
    for path in (path for folder in ("manas_lite", "manas_course", "tools") for path in (ROOT / folder).rglob("*.py")):
        for name in imported_names(ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
            imported |= {canonicalize_name(each) for each in provider.get(name, [name])}
    extras = set(PROJECT["optional-dependencies"]) - {"dev", "site"}
    required = {canonicalize_name(requirement.name) for requirement in requirements(*extras)}
    assert required - imported == tools


def test_the_architecture_page_has_the_layers_that_lint_holds() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```layers\n(.*?)```", text, re.DOTALL)
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    assert [line.split("  ")[0].strip() for line in block.splitlines()] == configuration["contracts"][0]["layers"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_holds_on_newer_pythons(path: Path) -> None:
    """What 3.12 and 3.13 took away or began to warn about: removed modules, invalid escapes."""
    text = path.read_text(encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = compile(text, str(path), "exec", flags=ast.PyCF_ONLY_AST, dont_inherit=True)
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    assert imported & REMOVED_MODULES == set()


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", PACKAGES, ids=lambda root: root.__name__)
def test_no_function_or_class_shares_its_name_with_a_module(root: types.ModuleType) -> None:
    """`manas_lite.rain` must stay the module however it is imported; so must a sub-package's modules, in it."""
    modules = {info.name for info in pkgutil.walk_packages(root.__path__, f"{root.__name__}.")}
    modules = {name for name in modules if not name.endswith("__main__")}
    top = {name.rsplit(".", 1)[1] for name in modules if name.count(".") == 1}
    assert {"bilevel", "losses", "rain"} <= top or {"checks", "ablation", "micro_bench"} <= top
    clashes = []
    for name in sorted(modules | {root.__name__}):
        package = name if name.count(".") == 1 else name.rpartition(".")[0]
        own = {other.rpartition(".")[2] for other in modules if other.rpartition(".")[0] == package}
        for attribute, value in vars(importlib.import_module(name)).items():
            if attribute in top | own and not isinstance(value, types.ModuleType):
                clashes.append(f"{name}.{attribute}")
    assert clashes == []


@pytest.mark.parametrize("root", PACKAGES, ids=lambda root: root.__name__)
def test_every_name_offered_exists(root: types.ModuleType) -> None:
    for info in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
        if not info.name.endswith("__main__"):
            module = importlib.import_module(info.name)
            missing = [name for name in getattr(module, "__all__", []) if not hasattr(module, name)]
            assert missing == [], info.name
    assert [name for name in getattr(root, "__all__", []) if not hasattr(root, name)] == []


# --- the repository -------------------------------------------------------------------------------


def test_no_large_file_is_tracked() -> None:
    """A network of 0.42 M parameters, the most that a shipped model may have, takes 1.7 MB; nothing else needs one."""
    weights = re.compile(r"manas_lite/assets/models/[\w-]+/weights\.safetensors")
    limits = {name: 1_700_000 if weights.fullmatch(name) else 1_000_000 for name in tracked_files()}
    assert [name for name, limit in limits.items() if (ROOT / name).stat().st_size > limit] == []


def test_no_machine_path_is_tracked() -> None:
    somewhere = re.compile(rb"(?<![\w.])/(?:home|Users|root|work|mnt)/[\w.-]|[A-Z]:\\\\?Users")
    hits = []
    for name in tracked_files():
        content = (ROOT / name).read_bytes()
        if b"\0" not in content and name != "tests/test_setup.py":
            hits += [f"{name}: {match.group().decode()}" for match in somewhere.finditer(content)]
    assert hits == []


def test_citation_names_the_kit_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == manas_lite.__version__
    assert citation["license"] == "MIT"
    (paper,) = citation["references"]
    assert paper["doi"] == "10.1109/TCSVT.2022.3207516"
    assert paper["year"] == 2023


@pytest.mark.parametrize(
    "name", ["README.md", "README.zh-CN.md", "docs/install.md", "docs/usage.md", "docs/equations.md"]
)
def test_readme_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)|src=\"([^\"]+)\"", text)
    local = {target for pair in targets for target in pair if target and "://" not in target}
    assert local, "no local link found: has the pattern gone stale?"
    assert sorted(target for target in local if not ((ROOT / name).parent / target).exists()) == []


def test_readme_is_short_and_its_chinese_sister_names_the_same_commands() -> None:
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    assert len(english.splitlines()) <= 120
    commands = re.findall(r"^(?:make|git clone) [^#\n]*", chinese, re.MULTILINE)
    assert len(commands) == 3
    assert [command for command in commands if command.rstrip() not in english] == []
    assert re.findall(r"assets/models/([\w-]+)/", chinese) == re.findall(r"assets/models/([\w-]+)/", english)


def test_readme_commands_exist() -> None:
    """Every `make` target, subcommand and measured figure that the README promises."""
    text = "".join(
        (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/usage.md", "docs/install.md")
    )
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets
    offered = subprocess.run([sys.executable, "-m", "manas_lite", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert offered.returncode == 0, offered.stderr
    for command in set(re.findall(r"python -m manas_lite ([a-z]+)", text)):
        assert re.search(rf"\b{command}\b", offered.stdout), f"README names `{command}`, the program does not"
    assert "TODO" not in text


@pytest.mark.slow
def test_readme_python_runs(tmp_path: Path) -> None:
    """The ten lines of the README, as they stand there, in an empty folder with one photograph."""
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    Image.new("RGB", (40, 30), "grey").save(tmp_path / "street.jpg")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "psnr_rgb" in result.stdout
    assert Image.open(tmp_path / "street-derained.jpg").size == (40, 30)


def test_table_of_hyperparameters_is_what_the_presets_say() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "hyperparameters.py"), "--check"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


# --- make -----------------------------------------------------------------------------------------


def fake_python(folder: Path, lie: str) -> Path:
    """An interpreter that runs `-c CODE` under a lie about itself."""
    script = folder / "python"
    script.write_text(f"#!{sys.executable}\nimport sys\n{lie}\nexec(sys.argv[2])\n", encoding="utf-8")
    script.chmod(0o755)
    return script


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ("sys.version_info = (3, 10, 4, 'final', 0)", "Python 3.11 or newer is needed"),
        (
            "import importlib.util; importlib.util.find_spec = lambda name: None",
            "sudo apt install python3-venv",
        ),
        (None, "was not found: install Python 3.11"),
    ],
)
def test_make_says_what_is_missing(tmp_path: Path, lie: str | None, message: str) -> None:
    python = tmp_path / "no-such-python" if lie is None else fake_python(tmp_path, lie)
    environment = tmp_path / "environment"
    result = subprocess.run(
        ["make", "demo", f"PYTHON={python}", f"VENV={environment}"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode != 0
    assert message in result.stdout + result.stderr
    assert not environment.exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_asks_for_the_build_that_TORCH_names(tmp_path: Path) -> None:
    def steps(*arguments: str) -> str:
        command = ["make", "--dry-run", "demo", f"VENV={tmp_path}", *arguments]
        clean = {name: value for name, value in os.environ.items() if name not in ("TORCH", "MAKEFLAGS")}
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=clean).stdout

    plain = steps()
    assert "install torch==2.13.0\n" in plain
    other = steps("TORCH=torch --index-url https://example.org/cpu")
    assert "install torch==2.13.0 --index-url https://example.org/cpu\n" in other
    assert "install torch==2.11.0\n" in steps("TORCH=torch==2.11.0")
    # Once made, the choice is remembered, and only naming another one makes the environment anew.
    for name, content in (("torch", "torch==2.11.0\n"), ("installed-core", "")):
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert "-m venv" not in steps()
    assert "-m venv" not in steps("TORCH=torch==2.11.0")
    assert "-m venv" in steps("TORCH=torch")
