"""Slides: every section has one, pictures are on them, answers are not, and what is said goes into the notes."""

import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from manas_lite.runs.record import read_json, write_json
from tools.course import contents, runner, slides, sources
from tools.course.__main__ import main

NOTEBOOKS = contents.notebooks()
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


def executed(notebook: contents.Notebook):
    """The solution version as if it had run: a picture from every plain code cell, and papermill's extra cell."""
    built = sources.build(notebook, "solution")
    for number, cell in enumerate(built.cells):
        cell["id"] = f"other-{number}"  # as in a copy of a source with another number of cells
    injected = nbformat.v4.new_code_cell("secret = 1", metadata={"tags": ["injected-parameters"]})
    built.cells.insert(5, injected)
    for cell in built.cells:
        if cell.cell_type == "code" and not sources.tags(cell):
            cell.outputs = [nbformat.v4.new_output("display_data", {"image/png": PIXEL})]
    return built


class Page(HTMLParser):
    """What an HTML page shows: texts of its sections, of the notes, and how many pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.notes, self.shown, self.pictures, self._aside = "", "", 0, 0
        self.feed(text)

    def handle_starttag(self, tag, attributes) -> None:
        self._aside += tag == "aside"
        self.pictures += tag == "img" and dict(attributes)["src"].startswith("data:image/png")

    def handle_endtag(self, tag) -> None:
        self._aside -= tag == "aside"

    def handle_data(self, data) -> None:
        if self._aside:
            self.notes += data
        else:
            self.shown += data


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_every_section_is_a_slide_and_no_answer_is_shown(notebook: contents.Notebook) -> None:
    run = executed(notebook)
    made = slides.deck(notebook, run)
    types = [cell.metadata.slideshow.slide_type for cell in made.cells]
    assert types[0] == "slide"
    prose = "\n".join(cell.source for cell in run.cells if cell.cell_type == "markdown")
    headings = {line for line in prose.splitlines() if line.startswith("## ")}
    shown = {cell.source for cell, kind in zip(made.cells, types, strict=True) if kind == "slide"}
    assert {h for h in headings if not h.startswith(slides.SKIPPED_SECTIONS)} <= shown
    code = "\n".join(cell.source for cell in made.cells if cell.cell_type == "code")
    assert code.count('raise NotImplementedError("your turn")') == len(notebook.exercises)
    assert "secret" not in code
    for cell in sources.build(notebook, "solution").cells:
        if "exercise" in sources.tags(cell):
            assert cell.source not in code


def test_the_page_shows_pictures_without_their_code_and_keeps_what_is_said_as_notes(tmp_path: Path) -> None:
    notebook = contents.find("03")
    run = executed(notebook)
    nbformat.write(run, tmp_path / "run.ipynb")
    page = Page(slides.write_slides(notebook, tmp_path / "run.ipynb", tmp_path / "slides.html").read_text())
    plain = [cell for cell in run.cells if cell.cell_type == "code" and cell.outputs]
    assert page.pictures == len(plain)
    assert "phase_plane" not in page.shown  # code that draws is not shown
    assert "def my_darts_step" in re.sub(r"\s+", " ", page.shown)  # an exercise is
    assert "First order ends at (2, 2)" in page.notes
    assert "First order ends at (2, 2)" not in page.shown
    assert "One weight, one architecture number" in page.shown


def test_a_page_loads_nothing_but_formulas_from_elsewhere(tmp_path: Path) -> None:
    for number in ("01", "05"):
        notebook = contents.find(number)
        nbformat.write(executed(notebook), tmp_path / "run.ipynb")
        text = slides.write_slides(notebook, tmp_path / "run.ipynb", tmp_path / "slides.html").read_text()
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)=[\"']?((?:https?:)?//[^\"'> ]*)", text)
        assert loaded  # MathJax
        assert [address for address in loaded if "mathjax" not in address.lower()] == []
        assert "@import" not in text
        assert "Reveal.initialize" in text
        assert "require(" not in text.rpartition("Reveal.initialize")[2]


def test_sizes_are_such_that_the_last_row_can_read() -> None:
    assert min(int(size) for size in re.findall(r"(\d+)px", slides.STYLE)) >= 24


def test_the_first_picture_stands_beside_the_words_and_the_others_alone() -> None:
    notebook = contents.find("05")
    kinds = []
    for cell in slides.deck(notebook, executed(notebook)).cells:
        kind = cell.metadata.slideshow.slide_type
        if cell.cell_type == "markdown" and kind == "slide":
            kinds.append([])
        elif cell.get("outputs"):
            kinds[-1].append(kind)
    assert any(len(section) > 1 for section in kinds)
    assert all(section == ["-", *["slide"] * (len(section) - 1)] for section in kinds if section)


def test_a_skipped_cell_and_long_output_are_left_out() -> None:
    notebook = contents.find("03")
    run = executed(notebook)
    pictures = [cell for cell in run.cells if cell.cell_type == "code" and cell.outputs]
    pictures[0].metadata["tags"] = ["slides:skip"]
    pictures[1].outputs = [nbformat.v4.new_output("stream", text="line\n" * 50)]
    kept = [cell for cell in slides.deck(notebook, run).cells if cell.get("outputs")]
    assert len(kept) == len(pictures) - 2


def test_the_command_runs_what_has_no_fit_copy(tmp_path: Path, monkeypatch, capsys) -> None:
    notebook = contents.find("02")
    facts = tmp_path / f"{notebook.stem}.json"
    ran = []

    def fake(notebook, *, preset, parameters, out):
        ran.append((notebook.number, preset, parameters))
        copy = out / f"{notebook.stem}.ipynb"
        nbformat.write(executed(notebook), copy)
        outcome = runner.Outcome(notebook.stem, preset, parameters, "done", "", 1.0, 1, "CPU", copy)
        write_json(facts, asdict(outcome))
        return outcome

    monkeypatch.setattr(runner, "run", fake)
    for _ in range(2):
        assert main(["slides", "2", "--out", str(tmp_path)]) == 0
    assert ran == [("02", "smoke", {})]
    assert (tmp_path / f"{notebook.stem}.slides.html").is_file()
    assert "running it at size smoke" in capsys.readouterr().out

    write_json(facts, {**read_json(facts), "status": "failed", "preset": "teach", "parameters": {"samples": 9}})
    assert main(["slides", "2", "--out", str(tmp_path)]) == 0
    assert ran[1:] == [("02", "teach", {"samples": 9})]  # as it had been run
    write_json(facts, {**read_json(facts), "status": "failed"})
    assert main(["slides", "2", "--out", str(tmp_path), "--preset", "smoke"]) == 0
    assert ran[2:] == [("02", "smoke", {})]
