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


def page_of(notebook: contents.Notebook, folder: Path) -> str:
    nbformat.write(executed(notebook), folder / "run.ipynb")
    return slides.write_slides(notebook, folder / "run.ipynb", folder / "slides.html").read_text()


@pytest.mark.parametrize("number", ["03", "07"])
def test_a_page_loads_nothing_from_elsewhere(number: str, tmp_path: Path) -> None:
    text = page_of(contents.find(number), tmp_path)
    assert re.findall(r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)=[\"']?(?:https?:)?//[^\"'> ]*", text) == []
    sheets = "".join(re.findall(r"<style.*?</style>", text, re.DOTALL))
    assert re.findall(r"url\((?!['\"]?(?:data:|#))[^)]*\)", sheets) == []
    assert "@import" not in text
    assert "Reveal.initialize" in text
    assert "require(" not in text.rpartition("Reveal.initialize")[2]
    formulas = "$" in contents.find(number).source
    assert ("KaTeX_Main" in text) == formulas  # half a megabyte that only formulas need


def test_what_is_for_slides_stands_on_them_and_not_in_the_notebook() -> None:
    notebook = contents.find("02")
    told = slides.bullets(notebook.source)
    assert len(told["## Two modules"]) == 3
    for version in ("student", "solution"):
        built = sources.build(notebook, version)
        assert not [cell for cell in built.cells if "slides: " in cell.source]
    cells = slides.deck(notebook, executed(notebook)).cells
    start = next(k for k, cell in enumerate(cells) if cell.source == "## Two modules")
    kinds = [cell.metadata.slideshow.slide_type for cell in cells]
    end = next(k for k in range(start + 1, len(cells)) if kinds[k] == "slide")
    assert cells[start + 1].source.splitlines() == [f"* {line}" for line in told["## Two modules"]]
    said = "\n".join(
        cell.source for cell, kind in zip(cells[start:end], kinds[start:end], strict=True) if kind == "notes"
    )
    assert "Both kinds of module take a list with one tensor per branch" in said  # the paragraph is for the speaker
    assert r"\mathrm{down}_{i-j}" in said


def test_every_line_for_slides_belongs_to_a_section() -> None:
    for notebook in NOTEBOOKS:
        told = slides.bullets(notebook.source)
        assert "" not in told, notebook.stem
        assert max(map(len, told.values()), default=0) <= 4, notebook.stem  # one idea a slide


@pytest.mark.parametrize("after", ["", "slides: b\n", "slides: b\n\nText.\n\nMore."])
def test_a_section_reads_as_if_nothing_were_for_slides(after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = "## Heading\n\nslides: a $x$\n" + after
    source = "# %% [markdown]\n" + "\n".join(f"# {line}".rstrip() for line in cell.splitlines()) + "\n"
    monkeypatch.setattr(contents.Notebook, "source", property(lambda _: source))
    (read,) = sources.read(contents.find("02"))
    assert read.source == ("## Heading\n\nText.\n\nMore." if "Text" in after else "## Heading")


def test_sizes_are_such_that_the_last_row_can_read() -> None:
    assert min(int(size) for size in re.findall(r"(\d+)px", slides.STYLE)) >= 24


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_a_slide_has_one_picture_and_the_first_stands_beside_the_words(notebook: contents.Notebook) -> None:
    told = slides.bullets(notebook.source)
    shown: list[list] = []
    for cell in slides.deck(notebook, executed(notebook)).cells:
        if cell.metadata.slideshow.slide_type == "slide":
            shown.append([])
        if cell.metadata.slideshow.slide_type != "notes":
            shown[-1].append(cell)
    seen: set[str] = set()
    for slide in shown:
        pictures = [cell for cell in slide if cell.get("outputs")]
        assert len(pictures) <= 1
        heading = slide[0].source
        if pictures and heading in told and heading not in seen:
            assert slide[1].source == "\n".join(f"* {line}" for line in told[heading])
            seen.add(heading)
    assert len(seen) > 1 or not any(cell.get("outputs") for slide in shown for cell in slide)


def test_the_answer_comes_after_the_question() -> None:
    notebook = contents.find("03")
    cells = slides.deck(notebook, executed(notebook)).cells
    kinds = [cell.metadata.slideshow.slide_type for cell in cells]
    asked = next(k for k, cell in enumerate(cells) if "does it stop moving?" in cell.source)
    assert cells[asked].source.startswith("> **Predict")
    assert kinds[asked] == "slide"
    answer = kinds.index("slide", asked + 1)
    assert cells[answer].source == "## A toy with a known answer"  # again, with the picture that answers
    assert cells[answer + 2].get("outputs")
    said = "".join(cells[k].source for k in range(asked, answer) if kinds[k] == "notes")
    assert "It stops where its own gradient is zero" in said
    assert "<details>" not in said


def test_a_skipped_cell_and_long_output_are_left_out() -> None:
    notebook = contents.find("03")
    run = executed(notebook)
    pictures = [cell for cell in run.cells if cell.cell_type == "code" and cell.outputs]
    pictures[0].metadata["tags"] = ["slides:skip"]
    pictures[1].outputs = [nbformat.v4.new_output("stream", text="line\n" * 50)]
    kept = [cell for cell in slides.deck(notebook, run).cells if cell.get("outputs")]
    assert len(kept) == len(pictures) - 2


def test_a_printed_line_is_said_and_several_are_shown() -> None:
    notebook = contents.find("03")
    run = executed(notebook)
    pictures = [cell for cell in run.cells if cell.cell_type == "code" and cell.outputs]
    pictures[0].outputs = [nbformat.v4.new_output("stream", text="one fact\n")]
    pictures[1].outputs = [nbformat.v4.new_output("stream", text="first\nsecond\n")]
    cells = slides.deck(notebook, run).cells
    assert any("one fact" in cell.source for cell in cells if cell.metadata.slideshow.slide_type == "notes")
    (shown,) = [k for k, cell in enumerate(cells) if cell.get("outputs") and cell.outputs[0].output_type == "stream"]
    assert cells[shown].outputs[0].text == "first\nsecond\n"
    assert cells[shown - 1].metadata.slideshow.slide_type == "slide"


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
