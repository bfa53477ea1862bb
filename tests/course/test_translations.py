"""Notebooks in other languages: the same code, every text translated, and looked at when it changes."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest

from tools.course import contents, sources, stamping, translations
from tools.course.__main__ import main

FILES = list(translations.files())
each = pytest.mark.parametrize(("notebook", "language", "path"), FILES, ids=lambda value: getattr(value, "name", None))


def code(notebook) -> list[tuple[str, str]]:
    return [(cell.id, cell.source) for cell in nbformat.from_dict(notebook).cells if cell.cell_type == "code"]


def test_the_first_notebook_is_there_in_chinese() -> None:
    assert [(notebook.number, language) for notebook, language, _ in FILES] == [("00", "zh-CN")]
    readme = (contents.folder().parent / "README.zh-CN.md").read_text(encoding="utf-8")
    assert "(notebooks/00_start_here.zh-CN.ipynb)" in readme


@each
def test_the_code_is_the_english_one_and_every_text_is_translated(notebook, language: str, path: Path) -> None:
    assert translations.outdated(notebook, path) == []
    english = nbformat.read(notebook.path, as_version=4)
    other = nbformat.read(translations.path_of(notebook, language), as_version=4)
    assert code(other) == code(english)
    assert [cell.cell_type for cell in other.cells] == [cell.cell_type for cell in english.cells]
    for one, two in zip(english.cells, other.cells, strict=True):
        if one.cell_type == "markdown":
            assert one.source != two.source
            assert re.search("[\u4e00-\u9fff]", two.source), two.source
            assert re.findall(r"\n(?=## )", one.source) == re.findall(r"\n(?=## )", two.source)
            if "facts" not in sources.tags(one):  # whose costs stand in the English notebook alone
                assert one.source.count("\n|") == two.source.count("\n|")


@each
def test_links_and_code_words_are_kept(notebook, language: str, path: Path) -> None:
    """A name in back quotes is the same in every language."""
    marks = re.compile(r"`([^`\n]+)`")
    for one, two in zip(sources.read(notebook), _texts(notebook, path), strict=False):
        assert sorted(set(marks.findall(one.source))) == sorted(set(marks.findall(two))), two
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert target.startswith("http") or (contents.folder() / target).exists(), target


def _texts(notebook, path: Path):
    english = [cell for cell in sources.read(notebook) if cell.cell_type == "markdown"]
    texts = re.split(r"^<!-- of \w+ -->\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[3:]
    assert len(texts) == len(english)
    by_source = {cell.source: text for cell, text in zip(english, texts, strict=True)}
    return [by_source.get(cell.source, cell.source) for cell in sources.read(notebook)]


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the notebooks, to change at will."""
    folder = shutil.copytree(contents.folder(), tmp_path / "notebooks")
    monkeypatch.setattr(contents, "folder", lambda: folder)
    return folder


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("sources/00_start_here.py", "# * The course searches, derives", "# * This course searches, derives"),
        ("sources/00_start_here.py", "Fill the blanks:", "Fill all blanks:"),
        ("course.yaml", "a first derained photograph within a minute", "a first derained photograph at once"),
        ("course.yaml", "judge** the result in dB", "judge** the result in decibels"),
    ],
)
def test_a_changed_english_text_is_named_until_its_translation_was_looked_at(
    course: Path, capsys: pytest.CaptureFixture[str], file: str, old: str, new: str
) -> None:
    target = course / "00_start_here.zh-CN.ipynb"
    before = target.read_text(encoding="utf-8")
    replace(course / file, old, new)
    (line,) = stamping.outdated()
    stamping.stamp()
    assert target.read_text(encoding="utf-8") == before
    assert main(["stamp", "--check"]) == 1
    assert line in capsys.readouterr().err
    ((notebook, _, path),) = translations.files()
    mark = re.search(r"<!-- of \w+ -->", line)
    assert mark
    stale = set(re.findall(r"<!-- of \w+ -->", path.read_text(encoding="utf-8")))
    stale -= {f"<!-- of {translations.mark(text)} -->" for text in translations.english(notebook)}
    replace(path, stale.pop(), mark[0])
    assert stamping.outdated() == []


def test_an_added_text_is_named(course: Path) -> None:
    source = course / "sources" / "00_start_here.py"
    source.write_text(source.read_text(encoding="utf-8") + "\n# %% [markdown]\n# One more.\n", encoding="utf-8")
    (line,) = stamping.outdated()
    assert re.search(r"translates (\d+) texts, the English source has (\d+)", line)


def test_changed_code_reaches_the_translation_without_a_question(course: Path) -> None:
    replace(course / "sources" / "00_start_here.py", "scene = 0 ", "scene = 1 ")
    assert stamping.outdated() == []
    stamping.stamp()
    for name in ("00_start_here.ipynb", "00_start_here.zh-CN.ipynb"):
        assert any("scene = 1 " in source for _, source in code(nbformat.read(course / name, as_version=4)))
