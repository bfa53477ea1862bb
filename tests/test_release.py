"""A release: one version in all files, and a run of many minutes that goes on where it stopped."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from project import ROOT
from test_experiments import script

release = script("release")
FILES = ("manas_lite/__init__.py", "pyproject.toml", "CITATION.cff", ".zenodo.json", "CHANGELOG.md")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files that name the version, to spoil at will, with a changelog that is ready for a release."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    version = release.version_of(ROOT)
    (tmp_path / "CHANGELOG.md").write_text(
        f"# Changelog\n\n## {version} (2027-01-01)\n\n* All.\n\n## 0.0.1\n\n* Some.\n"
    )
    return tmp_path


def spoil(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
    assert count == 1
    path.write_text(text, encoding="utf-8")


def test_the_files_of_this_clone_name_one_version() -> None:
    assert list(release.problems(ROOT, released=False)) == []


def test_a_clone_that_is_ready_has_no_problem(root: Path) -> None:
    assert list(release.problems(root, released=True)) == []


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "message"),
    [
        ("CITATION.cff", r"^version: .*", "version: 9.9.9", "CITATION.cff states version 9.9.9"),
        (".zenodo.json", r'"version": ".*"', '"version": "9.9"', ".zenodo.json states version 9.9"),
        ("manas_lite/__init__.py", r'^__version__ = ".*"', '__version__ = "7.0.0"', "the package 7.0.0"),
        ("pyproject.toml", r"^dynamic = .*", 'version = "0.1.0"', "pyproject.toml states a version of its own"),
        (".zenodo.json", r'"title": ".*"', '"title": "Another"', "has the title 'Another'"),
        (".zenodo.json", r'"license": ".*"', '"license": "GPL-3.0"', "different licences"),
        (".zenodo.json", r"10\.1109/TCSVT", "10.1109/OTHER", "does not relate to 10.1109/TCSVT"),
        ("CHANGELOG.md", r"^## .* \(2027-01-01\)", "## Unreleased", "CHANGELOG.md begins with"),
        ("CHANGELOG.md", r"^## .* \(2027-01-01\)", "## 5.0", "CHANGELOG.md begins with"),
        ("CHANGELOG.md", r"^## 0\.0\.1", "## Unreleased", "CHANGELOG.md begins with"),
    ],
)
def test_a_disagreement_is_named(root: Path, name: str, pattern: str, replacement: str, message: str) -> None:
    spoil(root / name, pattern, replacement)
    assert any(message in line for line in release.problems(root, released=True))


def test_a_package_without_a_version_is_told(root: Path) -> None:
    spoil(root / "manas_lite/__init__.py", r'^__version__ = ".*"\n', "")
    with pytest.raises(release.ReleaseError, match="no single line"):
        list(release.problems(root, released=False))


def test_the_check_is_part_of_lint_and_tells_the_version() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "release.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == release.version_of(ROOT)
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    assert "scripts/release.py --check" in lint


def test_zenodo_and_citation_name_the_same_makers() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    assert [maker["name"] for maker in citation["authors"]] == [maker["name"] for maker in zenodo["creators"]]
    assert citation["type"] == zenodo["upload_type"] == "software"
    assert set(citation["keywords"]) == set(zenodo["keywords"])


def test_torch_is_asked_for_by_its_pin_alone(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("a==1\ntorch==2.5.0 ; python_version > '3'\ntorchmetrics==1\nz==1 ; a\n")
    assert release.pinned_torch(tmp_path) == "torch==2.5.0"
    assert re.fullmatch(r"torch==[\d.]+", release.pinned_torch(ROOT))


# --- going on ---


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """Building and trying replaced by notes of what was done; `fail` is the Python whose try fails."""
    log = SimpleNamespace(done=[], fail="", source="a", options=None)

    def build(out: Path) -> list[Path]:
        log.done.append("build")
        out.mkdir(exist_ok=True)
        for name in ("x.whl", "x.tar.gz"):
            (out / name).write_text("")
        return [out / "x.whl", out / "x.tar.gz"]

    def try_out(python: Path, files: list[Path], torch: str, version: str):
        if python.name == log.fail:
            raise release.ReleaseError("no luck")
        log.done.append(python.name)
        return [f"{file.name}: fine" for file in files]

    monkeypatch.setattr(release, "problems", lambda root, released: [])
    monkeypatch.setattr(release, "build", build)
    monkeypatch.setattr(release, "try_out", try_out)
    monkeypatch.setattr(release, "source_digest", lambda: log.source)
    monkeypatch.setattr(release, "interpreters", lambda wanted: {name: Path(name) for name in wanted if name != "3.12"})
    log.options = SimpleNamespace(
        check=False, out=tmp_path / "dist", state=tmp_path / "state", torch="", python=["3.11", "3.12", "3.13"]
    )
    return log


def test_what_was_done_is_not_done_again(steps: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    steps.fail = "3.13"
    with pytest.raises(release.ReleaseError):
        release.release(steps.options)
    assert steps.done == ["build", "3.11"]
    assert "Python 3.12: not on this machine" in capsys.readouterr().out
    steps.fail = ""
    release.release(steps.options)
    assert steps.done == ["build", "3.11", "3.13"]
    told = capsys.readouterr().out
    assert "Python 3.11: x.whl: fine" in told
    assert "Python 3.13: x.tar.gz: fine" in told
    release.release(steps.options)
    assert steps.done == ["build", "3.11", "3.13"]


@pytest.mark.parametrize("change", ["source", "file"])
def test_another_source_or_a_lost_file_is_built_and_tried_anew(steps: SimpleNamespace, change: str) -> None:
    release.release(steps.options)
    if change == "source":
        steps.source = "b"
    else:
        (steps.options.out / "x.whl").unlink()
    release.release(steps.options)
    assert steps.done == ["build", "3.11", "3.13"] * 2


def test_the_digest_is_of_what_lies_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(release, "call", lambda command: "a.py\0b.py\0")
    digests = []
    for a, b in (("1", "2"), ("1", "2"), ("12", ""), ("2", "1")):
        (tmp_path / "a.py").write_text(a)
        (tmp_path / "b.py").write_text(b)
        digests.append(release.source_digest())
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_only_interpreters_of_the_wanted_version_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr(release.shutil, "which", lambda name: None)
    folder = tmp_path / "versions" / "3.12.1" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").write_text("#!/bin/sh\necho 3.12\n")
    (folder / "python").chmod(0o755)
    other = tmp_path / "versions" / "3.13.0" / "bin"
    other.mkdir(parents=True)
    (other / "python").write_text("#!/bin/sh\necho 3.9\n")
    (other / "python").chmod(0o755)
    assert release.interpreters(["3.11", "3.12", "3.13"]) == {"3.12": folder / "python"}


def test_a_failed_program_is_told_with_its_last_lines() -> None:
    with pytest.raises(release.ReleaseError, match="the reason"):
        release.call([sys.executable, "-c", "import sys; print('the reason'); sys.exit(3)"])
