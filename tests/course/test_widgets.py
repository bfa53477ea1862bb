"""The seven widgets: a slider moves the picture, an exception surfaces, and the static twin is the same picture."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from manas_course import micro_bench, support, widgets
from manas_lite import Genotype, SearchSpace, open_split

ipywidgets = pytest.importorskip("ipywidgets")


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return open_split("photos").test[0].clean.read()


@pytest.fixture(scope="module")
def log() -> list[dict]:
    lines = (support.shipped("search") / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def make(clean: np.ndarray, log: list[dict]):
    teach = SearchSpace.preset("teach")
    pair = [micro_bench.genotype_of(pattern, "SE") for pattern in ("ffff", "pppp")]
    bought = {"cost": np.array([70.0, 300.0]), "seen": np.array([22.0, 23.0]), "expected": np.array([22.1, 22.9])}
    limit = {"error": 0.2, "budget": 80.0, "unit": "million multiply-adds"}
    makers = {
        "rainfall": (lambda **k: widgets.rainfall(clean, **k), {"level": 4.0}),
        "genotype_editor": (lambda **k: widgets.genotype_editor(Genotype.hand_made(teach), **k), {"choice": "fusion"}),
        "mixer": (lambda **k: widgets.mixer(clean, **k), {"SE": 3.0}),
        "toy_step": (lambda **k: widgets.toy_step(**k), {"xi": 0.0}),
        "replay": (lambda **k: widgets.replay(log, teach, **k), {"epoch": 0}),
        "network_within": (lambda **k: widgets.network_within(pair, **bought, **limit, **k), {"budget": 301.0}),
        "before_after": (lambda **k: widgets.before_after(clean, 255 - clean, **k), {"position": 10}),
    }
    return makers.__getitem__


NAMES = [name for name in widgets.__all__ if name != "Interactive"]


def test_there_are_seven() -> None:
    assert len(NAMES) == 7


@pytest.mark.parametrize("name", NAMES)
def test_moving_a_control_changes_the_picture(make, name: str) -> None:
    build, change = make(name)
    widget = build(static=False)
    before = bytes(widget.picture.value)
    assert before.startswith(b"\x89PNG")
    (control, value), *_ = change.items()
    widget.controls[control].value = value
    after = bytes(widget.picture.value)
    assert after.startswith(b"\x89PNG")
    assert after != before
    bundle = widget._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.box.model_id
    assert bundle["image/png"]


@pytest.mark.parametrize("name", NAMES)
def test_the_static_twin_is_what_the_sliders_show_first(make, name: str) -> None:
    build, _ = make(name)
    still = build(static=True)
    assert still._repr_png_() == bytes(build(static=False).picture.value)
    assert type(build()) is type(still)  # no notebook here: static by itself


def test_an_exception_in_a_callback_surfaces(clean: np.ndarray) -> None:
    widget = widgets.rainfall(clean, static=False)
    widget.render = lambda **_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        widget.controls["level"].value = 1.0


def test_pictures_of_different_sizes_are_refused(clean: np.ndarray) -> None:
    with pytest.raises(ValueError, match="differ in size"):
        widgets.before_after(clean, clean[:-1])


def test_the_editor_shows_the_tables_score_as_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(Figure, "text", lambda self, x, y, text, **_: shown.append(text))
    table = {micro_bench.genotype_of("pppf", "SE").id: 25.25, micro_bench.genotype_of("pppf", "CBAM").id: 26.5}
    widget = widgets.genotype_editor(micro_bench.genotype_of("pppf", "SE"), table=table, static=False)
    assert "PSNR 25.25 dB" in shown[-1]
    widget.controls["place"].value = "edge 0"
    widget.controls["choice"].value = "CBAM"
    assert "not in the table" in shown[-1]  # one edge of six: the table ties them
    widget.controls["place"].value = "all edges"
    assert widget.controls["choice"].value == widgets.SEVERAL
    widget.controls["choice"].value = "CBAM"
    assert "PSNR 26.50 dB" in shown[-1]


def test_going_to_another_place_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(Figure, "text", lambda self, x, y, text, **_: shown.append(text))
    widget = widgets.genotype_editor(micro_bench.genotype_of("pppf", "SE"), static=False)
    before = shown[-1]
    for place, standing in (("module 3", "fusion"), ("module 1", "parallel"), ("edge 2", "SE"), ("all edges", "SE")):
        widget.controls["place"].value = place
        assert widget.controls["choice"].value == standing
        assert shown[-1] == before
    widget.controls["place"].value = "module 3"
    widget.controls["choice"].value = "parallel"
    assert shown[-1] != before
