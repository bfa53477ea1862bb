"""The picture that each committed notebook shows, there being no outputs: light, described, made anew."""

import base64
import io
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from manas_lite.runs.settings import parse
from tools.course import contents, sources, stamping
from tools.course.__main__ import main

NOTEBOOKS = contents.notebooks()
each = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)


@each
def test_every_notebook_shows_its_picture_once_by_a_relative_link(notebook: contents.Notebook) -> None:
    cells = nbformat.read(notebook.path, as_version=4).cells
    alt = notebook.picture["alt"]
    link = f"![{alt}](../figures/notebooks/{notebook.stem}.webp)"
    assert [cell.source.count(link) for cell in cells][:1] == [1]
    assert sum(cell.source.count("../figures/") for cell in cells) == 1
    assert len(alt.split()) >= 6
    assert not set("[]()\n") & set(alt)


@each
def test_every_picture_is_there_and_light(notebook: contents.Notebook) -> None:
    path = notebook.picture_path
    assert 2_000 < path.stat().st_size < 120_000
    with Image.open(path) as image:
        assert image.format == "WEBP"
        assert 300 <= image.width <= 900
        assert np.asarray(image.convert("L")).std() > 5  # not a blank


def test_no_picture_lies_there_that_no_notebook_shows() -> None:
    folder = NOTEBOOKS[0].picture_path.parent
    assert {path.name for path in folder.iterdir()} == {notebook.picture_path.name for notebook in NOTEBOOKS}


# --- making them ---


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(contents, "folder", lambda: tmp_path / "notebooks")
    return tmp_path


def notebook(of: str) -> contents.Notebook:
    facts = {"number": "42", "name": "x", "title": "T", "purpose": "P.", "learn": [], "before": "-", "next": "–"}
    return parse(contents.Notebook, facts | {"picture": {"of": of, "alt": "a"}}, where="42")


def png(colour: str, size: tuple[int, int]) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "PNG")
    return data.getvalue()


def executed(folder: Path, *pictures: bytes) -> None:
    """A copy whose cells show text and pictures in turn."""
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    outputs = [new_output("display_data", {"image/png": base64.b64encode(data).decode()}) for data in pictures]
    cells = [new_code_cell("x", outputs=[new_output("stream", text="."), output]) for output in outputs]
    nbformat.write(new_notebook(cells=cells), folder / "42_x.ipynb")


@pytest.mark.parametrize(("number", "colour"), [("1", (255, 0, 0)), ("2", (0, 0, 255))])
def test_a_picture_of_a_run_is_taken_by_its_number_and_made_small(
    clone: Path, number: str, colour: tuple[int, int, int]
) -> None:
    executed(clone, png("red", (1800, 600)), png("blue", (200, 1400)))
    path = stamping.keep_picture(notebook(number), clone)
    assert path == clone / "figures" / "notebooks" / "42_x.webp"
    with Image.open(path) as image:
        assert image.size == ((900, 300) if number == "1" else (100, 700))
        mean = np.asarray(image.convert("RGB"), dtype=float).mean((0, 1))
    np.testing.assert_allclose(mean, colour, atol=4)


def test_a_picture_of_a_figure_needs_no_run(clone: Path) -> None:
    (clone / "figures").mkdir()
    (clone / "figures" / "one.png").write_bytes(png("lime", (90, 50)))
    with Image.open(stamping.keep_picture(notebook("one.png"), clone / "nowhere")) as image:
        assert image.size == (90, 50)


@pytest.mark.parametrize("of", ["0", "3", "two.png", ""])
def test_a_picture_that_is_not_there_is_named(clone: Path, of: str) -> None:
    executed(clone, png("red", (9, 9)), png("red", (9, 9)))
    with pytest.raises(ValueError, match=r"42_x") as caught:
        stamping.keep_picture(notebook(of), clone)
    assert "\n" not in str(caught.value)
    assert not (clone / "figures" / "notebooks").exists()


def test_a_missing_run_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert any(each.picture["of"].isdecimal() for each in NOTEBOOKS)
    number = next(each.number for each in NOTEBOOKS if each.picture["of"].isdecimal())
    assert main(["picture", number, "--out", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_pictures_are_not_in_what_is_executed() -> None:
    """An executed copy lies elsewhere, so that the link would lead nowhere."""
    for each in NOTEBOOKS:
        assert "../figures/" not in "".join(cell.source for cell in sources.build(each, "solution").cells)
