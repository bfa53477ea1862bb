"""The strict runner, on notebooks of a few lines in a course of their own."""

from pathlib import Path

import nbformat
import pytest
from PIL import Image

from tools.course import contents, parameters, reports, runner, slides, stamping
from tools.course.__main__ import main

YAML = """
repository: {address: "", ref: "", wheel: "", sha256: ""}
notebooks:
  "01": {name: tiny, title: Tiny, purpose: Runs., learn: [a], before: b, next: "–", trains: true}
"""
SOURCE = """
# %% tags=["parameters"]
rate = 0.1  # learning rate
steps = 2  # training steps
names = ["a", "b"]  # arms
runs_dir = "runs"  # where runs go

# %%
{body}

# %%
{last}
"""
FIGURE = "from matplotlib.figure import Figure\nfrom IPython.display import display\ndisplay(Figure(figsize=(1, 1)))"
PNG = "from manas_lite.draw.style import Drawing\nDrawing(figsize=(1, 1))"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
RECORD = "course.record_results(steps=steps, rate=rate, names=names)"


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that makes the course's one notebook of a body and a last cell."""
    folder = tmp_path / "notebooks"
    (folder / "sources").mkdir(parents=True)
    (folder / "params").mkdir()
    (folder / "course.yaml").write_text(YAML)
    (folder / "params" / "smoke.yaml").write_text('"01": {steps: 1, rate: 1e-3}\n')
    monkeypatch.setattr(contents, "folder", lambda: folder)

    def make(body: str = PNG, last: str = RECORD) -> contents.Notebook:
        (folder / "sources" / "01_tiny.py").write_text(SOURCE.format(body=body, last=last))
        return contents.notebooks()[0]

    return make


def test_a_run_with_a_preset_and_parameters(course, tmp_path: Path) -> None:
    outcome = runner.run(course(), preset="smoke", parameters={"names": "x, y"}, out=tmp_path / "out")
    assert outcome.done, outcome.reason
    assert outcome.metrics == {"steps": 1, "rate": 0.001, "names": ["x", "y"]}  # 1e-3: YAML hands over a text
    assert outcome.parameters["runs_dir"] == str(tmp_path / "out" / "runs" / "smoke")
    assert outcome.seconds > 0
    assert outcome.memory > 10_000_000
    page = reports.render(outcome.copy)
    assert page.is_file()
    index = reports.write_index(tmp_path / "out").read_text()
    assert "01_tiny.html" in index
    assert "all done" in index


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rte": 1}, "did you mean 'rate'"),
        ({"steps": "many"}, "steps: expected int"),
        ({"steps": 1.5}, "steps: expected int"),
        ({"rate": "inf"}, "finite"),
        ({"names": 3}, "names: expected"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(course, tmp_path: Path, given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        runner.run(course(), preset="smoke", parameters=given, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("body", "last", "reason"),
    [
        ("raise OSError('the disk is away')", RECORD, "OSError: the disk is away"),
        (PNG, "print('done')", "no metric was recorded"),
        ("1", RECORD, "no figure was shown"),
        (PNG, "course.record_results(steps=0)", "no training step was taken"),
    ],
)
def test_a_run_that_failed_or_did_not_do_its_work(course, tmp_path: Path, body: str, last: str, reason: str) -> None:
    outcome = runner.run(course(body, last), preset="smoke", out=tmp_path)
    assert not outcome.done
    assert reason in outcome.reason
    assert any(cell.cell_type == "code" for cell in nbformat.read(outcome.copy, as_version=4).cells)  # it is kept
    assert "1 failed" in reports.write_index(tmp_path).read_text()


def test_a_cell_that_hangs_is_stopped(course, tmp_path: Path) -> None:
    outcome = runner.run(course("import time\ntime.sleep(600)"), preset="smoke", out=tmp_path, timeout=2)
    assert "Timeout" in outcome.reason
    assert outcome.seconds < 60


def test_a_run_that_is_cut_leaves_no_facts_of_an_earlier_one(course, tmp_path: Path, monkeypatch) -> None:
    def cut(notebook, path, **_) -> None:
        Path(path).write_text("half a copy")
        raise KeyboardInterrupt

    monkeypatch.setattr("papermill.execute_notebook", cut)
    facts = tmp_path / "01_tiny.json"
    facts.write_text('{"status": "done"}')
    with pytest.raises(KeyboardInterrupt):
        runner.run(course(), preset="smoke", out=tmp_path)
    assert not facts.exists()


def test_slides_are_made_of_finished_copies_of_the_present_source(course, tmp_path: Path) -> None:
    notebook = course()
    assert "no executed copy" in slides.unfit(notebook, tmp_path / "01_tiny.ipynb")
    outcome = runner.run(notebook, preset="smoke", out=tmp_path)
    assert slides.unfit(notebook, outcome.copy) == ""
    stamping.record_cost(notebook, {"preset": "smoke", "device": "CPU", "seconds": 1.0, "bytes": 1})
    assert slides.unfit(contents.notebooks()[0], outcome.copy) == ""  # another cost table is no other source
    assert "another source" in slides.unfit(course(f"{PNG}  # changed"), outcome.copy)
    outcome.copy.with_suffix(".json").write_text('{"status": "failed"}')
    assert "failed" in slides.unfit(notebook, outcome.copy)
    outcome.copy.with_suffix(".json").unlink()
    assert "no executed copy" in slides.unfit(notebook, outcome.copy)


@pytest.mark.parametrize("option", [["-p", "steps=1"], ["--version", "student"]])
def test_only_a_presets_own_costs_are_recorded(option: list[str], monkeypatch, capsys) -> None:
    monkeypatch.setattr(runner, "run", lambda *_, **__: pytest.fail("nothing may run"))
    assert main(["run", "00", "--record", *option]) == 2
    assert "leave out -p" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("rate = 0.1", "has no comment"),
        ("rate = 1 / 10  # derived", "no literal"),
        ("import os", "only `name = literal"),
        ("rate = None  # nothing", "a default is"),
        ("rates = []  # nothing", "a default is"),
    ],
)
def test_what_may_not_stand_in_a_parameters_cell(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameters.read(source)


def test_unknown_notebooks_and_presets_name_the_nearest(course) -> None:
    notebook = course()
    assert contents.find("1") == contents.find("tiny") == contents.find("01_tiny.ipynb") == notebook
    with pytest.raises(ValueError, match="did you mean 'tiny'"):
        contents.find("tinny")
    with pytest.raises(ValueError, match="unknown preset 'huge': choose one of smoke"):
        contents.preset("huge", notebook)


def test_a_page_comes_after_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep renders no copy again whose page is there: what is killed before that is rendered whole the next time."""
    copy = tmp_path / "a.ipynb"
    figure = nbformat.v4.new_output("display_data", data={"image/png": PIXEL})
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=[figure])]), copy)

    class Cut(Exception):
        pass

    def cut(self, *args, **kwargs) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", cut)
        with pytest.raises(Cut):
            reports.render(copy)
    assert not copy.with_suffix(".html").exists()
    assert reports.render(copy).is_file()
    assert copy.with_suffix(".png").is_file()
