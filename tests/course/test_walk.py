"""The walk on Colab: which device is here, where runs are kept, a real set from address to split, times on a card."""

import importlib
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import manas_course as course
from manas_course import mirrors, support
from manas_lite import Genotype, RetrainSettings, SearchSettings, SearchSpace
from tools.course import cards, contents, estimates, runner, sources
from tools.course.__main__ import main

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
servers, samples = importlib.import_module("loopback"), importlib.import_module("samples")


@pytest.fixture
def colab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """An imitation of Colab: no clone, and a Drive that is there once it was mounted."""
    drive = tmp_path / "content" / "drive"
    state = SimpleNamespace(drive=drive, refuses=False)

    def mount(where: str) -> None:
        if state.refuses:
            raise ValueError("mount failed")
        (Path(where) / "MyDrive").mkdir(parents=True, exist_ok=True)

    for name in ("google.colab", "google.colab.drive"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["google.colab.drive"].mount = mount
    monkeypatch.setattr(support, "DRIVE", drive)
    monkeypatch.setattr(support, "__file__", str(tmp_path / "site-packages" / "manas_course" / "support.py"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    return state


def test_runs_are_kept_in_the_clone_where_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    clone = Path(support.__file__).resolve().parents[1]
    assert (clone / "pyproject.toml").is_file()
    assert course.runs_folder("runs") == clone / "runs"
    course.keep_runs()
    assert capsys.readouterr().out == f"Runs are kept in {clone}\n"  # and nothing was mounted


def test_on_colab_runs_are_kept_on_the_drive(colab: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert course.runs_folder("runs") == Path.home() / "manas_lite" / "runs"
    course.keep_runs()
    kept = colab.drive / "MyDrive" / "manas_lite"
    assert course.runs_folder("runs") == kept / "runs"
    assert capsys.readouterr().out == f"Runs are kept in {kept}\n"


def test_a_drive_that_is_refused_costs_the_runs_and_says_so(colab, capsys: pytest.CaptureFixture[str]) -> None:
    colab.refuses = True
    course.keep_runs()
    said = capsys.readouterr().out
    assert "was not mounted (ValueError): runs are lost when Colab ends this session" in said
    assert said.endswith(f"Runs are kept in {Path.home() / 'manas_lite'}\n")


def test_the_way_to_a_graphics_card_is_shown_on_colab_alone(monkeypatch, colab, capsys) -> None:
    monkeypatch.setattr(support, "pick_device", lambda: torch.device("cpu"))
    course.runtime()
    assert "Runtime > Change runtime type > T4 GPU" in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "google.colab")
    course.runtime()
    said = capsys.readouterr().out
    assert "No graphics card here" in said
    assert "Runtime >" not in said
    monkeypatch.setattr(support, "pick_device", lambda: torch.device("cuda"))
    course.runtime()
    assert capsys.readouterr().out == ""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pytest.importorskip("requests", reason="downloads need the data extra: pip install 'manas_lite[data]'")
    monkeypatch.setenv("MANAS_LITE_SETS", str(tmp_path / "sets"))
    with servers.loopback() as running:
        yield running


def pairs(count: int = 10) -> bytes:
    import io

    from PIL import Image

    def png(array) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, format="PNG")
        return buffer.getvalue()

    files = {}
    for k in range(count):
        clean = samples.background(k, 96, 128)
        files |= {f"set/input/{k}.png": png(samples.rain_on(clean, k)), f"set/target/{k}.png": png(clean)}
    return samples.zipped(files)


def test_notebook_01_goes_from_an_address_to_a_split(server, capsys: pytest.CaptureFixture[str]) -> None:
    """One parameter is set. The cells of the section run as they stand, and nothing is fetched twice."""
    body = pairs()
    url = server.on("/mirror/rain.zip", servers.serve(body))
    built = sources.build(contents.find("01"))
    code = [cell.source for cell in built.cells if cell.cell_type == "code"]
    scope = {"course": course} | {p.name: p.default for p in runner.parameters_of(built)} | {"download": url}
    holds = [
        "# @title Imports",
        "course.fetched(",
        "height, width = ",
        "course.receipts()",
        "planted = signature(",
        "print({part: ",
    ]
    for text in holds:
        (cell,) = (source for source in code if text in source)
        exec(cell, scope)
    said = capsys.readouterr().out
    assert f"{len(body):,} bytes, sha256 " in said
    assert f"from {url} on " in said
    assert "val: 0 backgrounds in training, too" in said
    assert sum(len(getattr(scope["split"], part)) for part in ("train", "val", "test")) == 10
    assert scope["likeness"][0] > 0.65 > scope["likeness"][1]
    asked = len(server.requests)
    assert course.fetched(url, progress=False) == scope["source"]
    assert len(server.requests) == asked


def test_a_published_set_is_fetched_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(mirrors, "get", lambda name, **options: asked.append(name))
    assert course.fetched("rain100l") == "rain100l"  # what open_split takes
    assert asked == ["rain100l"]


def test_a_set_that_nobody_knows_is_told_with_the_nearest(server) -> None:
    with pytest.raises(ValueError, match="did you mean"):
        course.fetched("rain100")


def test_nothing_was_downloaded_where_nothing_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MANAS_LITE_SETS", str(tmp_path))
    assert course.receipts() == []


# --- times on a card that is not here ---

SPACE = SearchSpace((4, 8), modules_per_cell=1, stem="unshuffle", norm="none", residual=True)


def test_the_rule_is_launches_and_the_slower_of_computing_and_moving() -> None:
    card = cards.Card("made up", launch=1e-3, rate=1e6, bandwidth=1e5)
    assert cards.Counts(launches=7, flops=3_000_000, bytes=100).seconds(card) == pytest.approx(0.007 + 3)
    assert cards.Counts(launches=7, flops=100, bytes=200_000).seconds(card) == pytest.approx(0.007 + 2)


def test_operations_of_a_convolution_are_those_counted_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward 2 · 9 · 3 · 3 · 3 · h · w, and as much for the gradient of the weights; the input asks for none."""
    net = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    monkeypatch.setattr(cards, "DerainNet", lambda genotype, seed: net)
    monkeypatch.setattr(cards, "DerainLoss", lambda loss: lambda outputs, clean, epoch: (outputs.mean(), {}))
    settings = RetrainSettings.preset("smoke", batch=5, patch=8, rains=3)
    counts = cards.count_step(Genotype.hand_made(SPACE), settings)
    assert counts.flops == 5 * 2 * (2 * 27 * 3 * 3 * 64)
    assert 3 <= counts.launches <= 12


@pytest.mark.parametrize("network", [SPACE, Genotype.hand_made(SPACE)], ids=["supernet", "network"])
def test_a_batch_costs_operations_and_no_launches(network) -> None:
    preset = SearchSettings if isinstance(network, SearchSpace) else RetrainSettings
    one, four = (cards.count_step(network, preset.preset("smoke", batch=n, patch=16)) for n in (1, 4))
    assert (four.launches, four.flops, four.bytes) == (one.launches, 4 * one.flops, 4 * one.bytes)
    larger = cards.count_step(network, preset.preset("smoke", batch=1, patch=32))
    assert larger.launches == one.launches
    assert larger.flops > 3.5 * one.flops  # SSIM has more windows than four times as many


@pytest.mark.parametrize(
    ("number", "steps"),
    [("03", 8000 + 16 * 400), ("04", 2 * 15_000), ("06", 4000 + 3200 + 15_000)],
)
def test_a_row_for_a_card_is_steps_times_the_rule(number: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "count_step", lambda *_: cards.Counts(launches=1000, flops=0, bytes=0))
    rows = [{"preset": "smoke", "device": "here", "seconds": 99.0, "cpu_seconds": 40.0}]
    monkeypatch.setattr(sources, "measured_costs", lambda notebook: rows)
    row = cards.estimated(contents.find(number), "gpu", cards.Card("made up", launch=1e-6, rate=1, bandwidth=1))
    assert row["seconds"] == round(40 + steps / 1000)
    assert (row["device"], row["estimated"]) == ("made up", True)
    with pytest.raises(ValueError, match="trains nothing"):
        cards.estimated(contents.find("05"), "gpu")


def test_the_course_takes_about_an_hour_on_such_a_card() -> None:
    """Every notebook has the preset; those that train have an estimate, marked as one."""
    total = 0.0
    for notebook in contents.notebooks():
        same = sources.same_parameters(notebook, "gpu")
        rows = [row for row in sources.measured_costs(notebook) if row["preset"] in same]
        if notebook.trains:
            rows = [row for row in rows if row["device"] == cards.T4.name]
            assert rows[0]["estimated"] is True
        total += rows[0]["seconds"] if rows else 0
    assert 30 * 60 < total < 80 * 60
    table = (contents.folder() / "README.md").read_text(encoding="utf-8")
    assert "minutes (gpu, T4, estimated)" in table
    listed = (contents.folder() / "params" / "gpu.yaml").read_text(encoding="utf-8")
    assert [notebook.number for notebook in contents.notebooks() if f'"{notebook.number}":' not in listed] == []


def test_the_preset_gpu_says_how_long_it_takes_here_and_waits_to_be_asked(monkeypatch, tmp_path, capsys) -> None:
    ran = []
    done = SimpleNamespace(copy=tmp_path, done=True, status="done", seconds=1.0, reason="")
    monkeypatch.setattr(runner, "run", lambda notebook, **options: ran.append(notebook.number) or done)
    monkeypatch.setattr("tools.course.reports.render", lambda copy: None)
    monkeypatch.setattr("tools.course.reports.write_index", lambda out: out)
    monkeypatch.setattr(estimates, "extrapolated", lambda notebook, preset, **_: {"seconds": 5400})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    command = ["run", "03", "05", "--preset", "gpu", "--out", str(tmp_path)]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "03 about 1.5 h on this processor" in said
    assert "--preset teach" in said
    assert ran == []
    assert main([*command, "--anyway"]) == 0
    assert main(["run", "05", "--preset", "gpu", "--out", str(tmp_path)]) == 0  # it trains nothing
    assert ran == ["03", "05", "05"]
