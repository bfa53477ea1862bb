"""What a run loses when it is cut, what it says then, and what it refuses before it works."""

import contextlib
import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_resume
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_resume import Cut, cut_at, facts

from manas_lite import draw
from manas_lite.__main__ import main
from manas_lite.data import Picture, Scene, Split
from manas_lite.networks.nets import DerainNet
from manas_lite.photos.images import write_image
from manas_lite.runs import checkpoint, record
from manas_lite.runs.record import RunDirectory, read_log, read_manifest, run_path
from manas_lite.training import demo, loop, searching
from manas_lite.training.demo import DemoSettings, run_demo
from manas_lite.training.retraining import retrain
from manas_lite.training.schedules import RetrainSettings, SearchSettings
from manas_lite.training.searching import search

# Long epochs, so that every cut lies within one; batch statistics, noise and prices, so that there is much to forget.
SEARCH = replace(test_resume.SEARCH, epochs=2, steps=5, price_share=0.2, eigenvalue_every=1)
PATHS = replace(tiny.SEARCH, epochs=2, steps=5, strategy="fair-paths", evaluations=6, score_batches=1)
RETRAIN = replace(tiny.RETRAIN, epochs=2, steps=5, rate=3e-3)


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    return tiny.tiny_split(tmp_path_factory.mktemp("pictures"))


def run(what: str, split: Split, runs: Path, name: str = "cut"):
    if what == "retrain":
        return retrain(tiny.GENOTYPE, split, RETRAIN, runs_dir=runs, name=name, progress=False)
    return search(tiny.SPACE, split, {"search": SEARCH, "paths": PATHS}[what], runs_dir=runs, name=name, progress=False)


def kept(folder: Path) -> int:
    return checkpoint.read(folder / "checkpoint.safetensors")[1]["step"]


# --- saved by time ---


# Updates of all optimisers: a gradient search takes two per step from its second epoch on.
@pytest.mark.parametrize(
    ("what", "cuts", "steps"), [("retrain", (3, 4), (3, 7)), ("search", (2, 8), (2, 7)), ("paths", (3, 4), (3, 7))]
)
def test_a_run_that_is_saved_within_an_epoch_goes_on_bit_exactly(split, tmp_path, monkeypatch, what, cuts, steps):
    run(what, split, tmp_path, "whole")
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    for update, done in zip(cuts, steps, strict=True):
        with cut_at(update), pytest.raises(Cut):
            run(what, split, tmp_path)
        assert kept(tmp_path / "cut") == done  # nothing but the step that was cut is lost
        assert done % 5
    run(what, split, tmp_path)
    expected, found = facts(tmp_path / "whole"), facts(tmp_path / "cut")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == value, name


@pytest.mark.parametrize("seconds", [1.0, 50.0, 170.0])
@pytest.mark.parametrize("what", ["retrain", "search"])
def test_no_more_than_five_minutes_of_steps_lie_between_two_saves(split, tmp_path, monkeypatch, seconds, what):
    now, saves = [0.0], []
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    plain_step, plain_write = loop.weight_step, checkpoint.write

    def slow_step(*args, **kwargs):
        now[0] += seconds
        return plain_step(*args, **kwargs)

    def noted_write(*args, **kwargs):
        saves.append(now[0])
        plain_write(*args, **kwargs)

    for module in (demo.retrain.__globals__, searching.__dict__):
        monkeypatch.setitem(module, "weight_step", slow_step)
    monkeypatch.setattr(loop.checkpoint, "write", noted_write)
    run(what, split, tmp_path)
    during = [moment for moment in saves if moment <= 10 * seconds]
    gaps = np.diff([0.0, *during])
    assert gaps.max() <= 300
    assert seconds > 100 or len(set(during)) <= 2 + 10 * seconds / (loop.SAVE_EVERY - seconds)  # not at every step


@pytest.mark.parametrize("place", ["measured", "reported"])
@pytest.mark.parametrize("what", ["retrain", "search", "paths"])
def test_a_run_that_is_cut_at_the_end_of_an_epoch_repeats_no_step(split, tmp_path, monkeypatch, what, place):
    """Cut in each epoch's eigenvalue or validation, or after it, before the run is saved again."""
    run(what, split, tmp_path, "whole")
    taken, armed = [], [True]
    plain = loop.weight_step
    for module in (demo.retrain.__globals__, searching.__dict__):
        monkeypatch.setitem(module, "weight_step", lambda *a, **k: (taken.append(1), plain(*a, **k))[1])

    def cutting(holder, name, when):
        work = getattr(holder, name)

        def once(*args, **kwargs):
            if when == "before" and armed[0]:
                raise Cut
            done = work(*args, **kwargs)
            if armed[0]:
                raise Cut
            return done

        monkeypatch.setattr(holder, name, once)

    if place == "reported" or what == "paths":
        cutting(loop.Loop, "report", "after")
    else:
        cutting(
            *{"retrain": (demo.retrain.__globals__["_Retraining"], "_score"), "search": (searching, "report")}[what],
            "before",
        )
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    for epoch in (1, 2):
        armed[0] = True
        for _ in range(2):  # and again: what was cut once can be cut there again
            with pytest.raises(Cut):
                run(what, split, tmp_path)
            assert kept(tmp_path / "cut") == 5 * epoch
            assert len(taken) == 5 * epoch
        if epoch == 1:
            armed[0] = False
            with cut_at(0), pytest.raises(Cut):  # the end alone is made up for, then the next epoch begins
                run(what, split, tmp_path)
            del taken[5:]
    armed[0] = False
    run(what, split, tmp_path)
    assert len(taken) == 10
    expected, found = facts(tmp_path / "whole"), facts(tmp_path / "cut")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == value, name


@pytest.mark.parametrize(("seconds", "before"), [(1.0, False), (11.0, False), (12.0, True), (60.0, True)])
def test_a_run_is_saved_before_the_end_of_a_long_epoch(split, tmp_path, monkeypatch, seconds, before):
    """Five steps of so many seconds; at most a minute is unsaved when the validation begins."""
    now, events = [0.0], []
    plain_step, plain_write, plain_score = (
        loop.weight_step,
        checkpoint.write,
        demo.retrain.__globals__["validation_psnr"],
    )
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])

    def slow_step(*args, **kwargs):
        now[0] += seconds
        return plain_step(*args, **kwargs)

    monkeypatch.setitem(demo.retrain.__globals__, "weight_step", slow_step)
    monkeypatch.setattr(loop.checkpoint, "write", lambda *a, **k: (events.append(now[0]), plain_write(*a, **k)))
    score = lambda *a: (events.append("validation"), plain_score(*a))[1]  # noqa: E731
    monkeypatch.setitem(demo.retrain.__globals__, "validation_psnr", score)
    run("retrain", split, tmp_path)
    validated = [k for k, event in enumerate(events) if event == "validation"]
    assert len(validated) == 2
    for epoch, k in enumerate(validated, start=1):
        saved = [event for event in events[:k] if event != "validation"]
        assert 5 * epoch * seconds - (saved[-1] if saved else 0.0) < 60.0
        assert (saved[-1:] == [5 * epoch * seconds]) == before


@pytest.mark.parametrize("discretize", ["argmax", "perturbation"])
def test_what_the_end_of_a_search_has_scored_is_not_scored_again(split, tmp_path, monkeypatch, discretize):
    """Evolution over paths, and perturbation: hundreds of scores after the last step of a search."""
    settings = PATHS if discretize == "argmax" else replace(SEARCH, discretize=discretize)
    monkeypatch.setattr(searching, "MANIFEST_EVERY", -1.0)
    calls, stop_at = [0], [None]
    plain = searching._Search._remembered

    def counted(self, run, score):
        def one() -> float:
            if calls[0] == stop_at[0]:
                raise Cut
            calls[0] += 1
            return score()

        return plain(self, run, one)

    monkeypatch.setattr(searching._Search, "_remembered", counted)

    def go(name: str):
        return search(tiny.SPACE, split, settings, runs_dir=tmp_path, name=name, progress=False)

    whole, total, calls[0], stop_at[0] = go("whole"), calls[0], 0, 4
    with pytest.raises(Cut):
        go("cut")
    stop_at[0] = None
    again = go("cut")
    assert calls[0] == total > 4
    assert again.genotype == whole.genotype
    assert facts(tmp_path / "cut").keys() == facts(tmp_path / "whole").keys()
    for name, value in facts(tmp_path / "whole").items():
        assert facts(tmp_path / "cut")[name] == value, name


def test_scores_of_other_weights_count_nothing(split, tmp_path):
    whole = run("paths", split, tmp_path, "whole")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "scores.json").write_text(json.dumps({"weights": "of another net", "scores": [0.0] * 6}))
    assert run("paths", split, tmp_path).genotype == whole.genotype
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "scores.json").write_text('{"weights": 3}')
    with pytest.raises(ValueError, match=r"third/scores\.json: missing setting 'scores'"):
        run("paths", split, tmp_path, "third")


def test_a_cut_run_says_where_it_goes_on(split, tmp_path, capsys, monkeypatch):
    def stopped(number: int) -> str:
        count = [0]

        def stop(*args, **kwargs):
            count[0] += 1
            if count[0] > number:
                raise KeyboardInterrupt
            return loop.weight_step(*args, **kwargs)

        monkeypatch.setitem(demo.retrain.__globals__, "weight_step", stop)
        with pytest.raises(KeyboardInterrupt) as found:
            run("retrain", split, tmp_path)
        return str(found.value)

    assert stopped(3).endswith("cut goes on from step 0")
    assert stopped(7).endswith("cut goes on from step 5")
    assert stopped(1).endswith("cut goes on from step 5")
    monkeypatch.setitem(demo.retrain.__globals__, "weight_step", loop.weight_step)
    retrain(tiny.GENOTYPE, split, RETRAIN, runs_dir=tmp_path, name="cut")
    assert "continues from step 5" in capsys.readouterr().out


def test_a_run_that_was_cut_before_any_checkpoint_says_that_it_starts_again(split, tmp_path, capsys):
    with cut_at(2), pytest.raises(Cut):
        run("retrain", split, tmp_path)
    retrain(tiny.GENOTYPE, split, RETRAIN, runs_dir=tmp_path, name="cut")
    assert "starts again from step 0" in capsys.readouterr().out


# --- names, leftovers ---


@pytest.mark.parametrize("name", ["", ".", "..", "../escape", "a/b", "/etc", "a\\b", "..\\x", "a/", " ", "x ", "a\0b"])
def test_a_run_name_is_the_name_of_one_folder(name, split, tmp_path):
    for call in (
        lambda: retrain(tiny.GENOTYPE, split, RETRAIN, runs_dir=tmp_path / "runs", name=name),
        lambda: search(tiny.SPACE, split, SEARCH, runs_dir=tmp_path / "runs", name=name),
        lambda: run_demo(split, runs_dir=tmp_path / "runs", name=name),
    ):
        with pytest.raises(ValueError, match="is no name of a run"):
            call()
    assert not (tmp_path / "runs").exists()


@given(st.text(max_size=12))
def test_whatever_the_name_a_run_stays_in_its_folder(name):
    try:
        path = run_path("runs", name)
    except ValueError:
        return
    assert Path(os.path.normpath(path)).parent == Path("runs")
    assert path.name == name


@pytest.mark.parametrize("name", ["a", "demo-my photos", "größe", "...", ".hidden", "x.y", "a:b"])
def test_ordinary_names_are_taken(name):
    assert run_path("runs", name) == Path("runs") / name


def test_the_command_line_refuses_such_names(tmp_path, capsys):
    for name in ("../../escape", ""):
        command = ["retrain", "--genotype", "hand_made:smoke", "--runs-dir", str(tmp_path), "--name", name]
        assert main(command) == 2
        assert "is no name of a run" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_our_writing_are_cleared_and_others_stay(tmp_path, monkeypatch):
    def killed(*_):
        raise Cut

    monkeypatch.setattr(checkpoint.os, "replace", killed)
    for name in ("weights.safetensors", "x" * 240 + ".json", "größe.png"):
        with pytest.raises(Cut):  # as a kill: nothing is tidied up
            checkpoint.write_atomic(tmp_path / name, b"half")
    monkeypatch.undo()
    ours = {path.name for path in tmp_path.iterdir()}
    assert len(ours) == 3
    theirs = {".notes.12.tmp", ".x.tmp", "a.tmp", ".report.json.77.tmp", "~lock.tmp", ".manas_lite.tmp.keep"}
    for name in theirs:
        (tmp_path / name).write_text("mine")
    with RunDirectory(tmp_path, {"settings": 1}):
        found = {path.name for path in tmp_path.iterdir()}
    assert not ours & found
    assert theirs <= found


def test_leftovers_of_killed_processes_are_cleared_and_those_of_living_ones_stay(tmp_path, monkeypatch):
    def killed(*_):
        raise Cut

    monkeypatch.setattr(checkpoint.os, "replace", killed)
    dead = os.fork()
    if dead == 0:
        with contextlib.suppress(Cut):
            checkpoint.write_atomic(tmp_path / "a.png", b"half")
        os._exit(0)
    os.waitpid(dead, 0)
    with pytest.raises(Cut):
        checkpoint.write_atomic(tmp_path / "b.png", b"half")  # this process lives
    monkeypatch.setattr(checkpoint, "HOST", "0" * 8)
    with pytest.raises(Cut):
        checkpoint.write_atomic(tmp_path / "c.png", b"half")  # another machine's
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 3
    checkpoint.clear_leftovers(tmp_path)
    assert [f".{dead}." in path.name for path in tmp_path.iterdir()] == [False, False]


@pytest.mark.parametrize("length", [200, 248, 255])
def test_a_file_of_the_longest_name_is_written_atomically(tmp_path, length):
    checkpoint.write_atomic(tmp_path / ("x" * length), b"whole")
    assert (tmp_path / ("x" * length)).read_bytes() == b"whole"


# --- the pictures of a run ---


@pytest.fixture
def own(tmp_path) -> Split:
    return tiny.tiny_split(tmp_path / "pictures")


def replaced(scene: Scene, seed: int = 77) -> None:
    """Other contents under the same name, of the same number of bytes, with the time of the old ones."""
    path = scene.clean.path
    old, data = path.stat(), bytearray(path.read_bytes())
    write_image(path, tiny.picture(seed))
    new = path.read_bytes()
    path.write_bytes((new + bytes(len(data)))[: len(data)] if len(new) < len(data) else new)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("finished", [False, True])
def test_a_changed_picture_is_noticed_in_half_done_and_finished_runs(own, tmp_path, part, finished):
    if finished:
        run("retrain", own, tmp_path)
    else:
        with cut_at(7), pytest.raises(Cut):
            run("retrain", own, tmp_path)
    scene = getattr(own, part)[0]
    replaced(scene)
    with pytest.raises(ValueError, match=rf"on other data: .*changed since: .*{scene.clean.path.name}\. Use"):
        run("retrain", own, tmp_path)
    with pytest.raises(ValueError, match="changed since"):  # and again: the new contents were not taken for the old
        run("retrain", own, tmp_path)


def test_a_changed_picture_that_the_run_does_not_read_is_a_warning(own, tmp_path):
    result = run("retrain", own, tmp_path)
    replaced(own.test[1])
    with pytest.warns(UserWarning, match=f"parts that this run does not read: .*{own.test[1].clean.path.name}"):
        again = run("retrain", own, tmp_path)
    assert again.best_psnr == result.best_psnr


def test_pictures_are_hashed_again_only_where_size_or_time_differ(own, tmp_path, monkeypatch):
    hashed = []
    plain = record.sha256_of
    monkeypatch.setattr(record, "sha256_of", lambda path: (hashed.append(Path(path)), plain(path))[1])
    run("retrain", own, tmp_path)
    assert len(hashed) == 9
    run("retrain", own, tmp_path)
    assert len(hashed) == 9
    touched = own.train[2].clean.path
    os.utime(touched, (1, 1))  # another time, the same contents: looked at, and all is well
    run("retrain", own, tmp_path)
    assert hashed[9:] == [touched]
    run("retrain", own, tmp_path)
    assert len(hashed) == 10


def test_a_run_without_a_table_of_its_pictures_goes_on_and_gets_one(own, tmp_path):
    run("retrain", own, tmp_path)
    (tmp_path / "cut" / "data.json").unlink()
    run("retrain", own, tmp_path)
    assert len(json.loads((tmp_path / "cut" / "data.json").read_text())["files"]) == 9
    (tmp_path / "cut" / "data.json").unlink()
    replaced(own.train[0])
    with pytest.raises(ValueError, match="was started on other data"):
        run("retrain", own, tmp_path)


# --- refused before any work ---


@pytest.mark.parametrize("value", [1e35, 1e38, 1e39, 1e300])
def test_rates_beyond_float32_are_refused(value):
    for name in ("rate", "rate_end", "weight_decay"):
        with pytest.raises(ValueError, match=f"{name} is .*: it must be at most"):
            RetrainSettings(**{name: value})
    for name in ("weight_rate", "weight_rate_end", "arch_rate", "weight_decay", "arch_decay"):
        with pytest.raises(ValueError, match=f"{name} is .*: it must be at most"):
            SearchSettings(**{name: value})


@pytest.mark.parametrize("name", ["threads", "workers"])
def test_more_threads_than_any_machine_has_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 100000: it must be at most 1024"):
        replace(tiny.COMPUTE, **{name: 100_000})
    assert getattr(replace(tiny.COMPUTE, **{name: 64}), name) == 64


def test_seeds_beyond_a_generators_are_refused():
    for cls in (RetrainSettings, SearchSettings):
        with pytest.raises(ValueError, match=r"seed is .*: it must be at most"):
            cls(seed=2**64)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_largest_rates_end_in_one_line(split, tmp_path, optimizer):
    """What the limit lets through diverges, and says so."""
    settings = replace(SEARCH, optimizer=optimizer, weight_rate=1e34, arch_rate=1e34, clip=None)
    with pytest.raises((loop.DivergedError, ValueError)) as found:
        search(tiny.SPACE, split, settings, runs_dir=tmp_path, progress=False)
    assert "\n" not in str(found.value)


def test_the_command_line_ends_with_one_line(tmp_path, capsys):
    command = ["retrain", "--genotype", "hand_made:smoke", "--runs-dir", str(tmp_path), "--set", "rate=1e38"]
    assert main(command) == 2
    assert capsys.readouterr().err == "error: rate is 1e+38: it must be at most 1e+34\n"


def test_a_split_without_training_scenes_is_refused(split, tmp_path):
    empty = Split((), split.val, split.test)
    for what in ("retrain", "search"):
        with pytest.raises(ValueError, match="the split has no training scenes"):
            run(what, empty, tmp_path)
    assert not (tmp_path / "cut").exists()


def scene_of(folder: Path, name: str, clean: np.ndarray, rainy: np.ndarray) -> Scene:
    write_image(folder / f"{name}-clean.png", clean)
    write_image(folder / f"{name}-rainy.png", rainy)
    return Scene(name, Picture(folder / f"{name}-clean.png"), (Picture(folder / f"{name}-rainy.png"),), ("rainy",))


BLACK, WHITE = np.zeros((24, 24, 3), np.uint8), np.full((24, 24, 3), 255, np.uint8)


@pytest.mark.parametrize(
    ("clean", "rainy"),
    [(BLACK, BLACK), (BLACK, tiny.picture(1)), (WHITE, WHITE), (WHITE, BLACK), (tiny.picture(3), tiny.picture(3))],
)
def test_validation_pictures_that_nothing_can_beat_are_refused(split, tmp_path, clean, rainy):
    nothing = Split(split.train, (scene_of(tmp_path, "v", clean, rainy),), split.test)
    with pytest.raises(ValueError, match=r"none of the 1 validation scenes can choose the best network"):
        run("retrain", nothing, tmp_path)
    assert not (tmp_path / "cut").exists()


def test_one_such_picture_among_others_does_not_end_the_choice(split, tmp_path):
    """Its infinite score would make the first epoch the best for ever."""
    black = scene_of(tmp_path, "v", BLACK, BLACK)
    mixed = Split(split.train, (black, *split.val), split.test)
    result = retrain(tiny.GENOTYPE, mixed, replace(RETRAIN, val_scenes=2), runs_dir=tmp_path, progress=False)
    scores = [r["val_psnr_rgb"] for r in result.log if r["kind"] == "epoch"]
    assert all(np.isfinite(scores))
    assert result.best_epoch == int(np.argmax(scores))


@pytest.mark.parametrize("what", ["retrain", "search"])
def test_black_training_pictures_end_in_one_line_or_a_network(split, tmp_path, what):
    black = Split(tuple(scene_of(tmp_path, f"t{i}", BLACK, BLACK) for i in range(3)), split.val, split.test)
    run(what, black, tmp_path)
    assert (tmp_path / "cut" / "genotype.json").is_file()


# --- the demo: what is drawn cannot undo what was done ---


def test_a_drawing_that_fails_is_a_warning_and_the_work_is_there(split, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no such colour")

    monkeypatch.setattr(draw, "architecture", broken)
    settings = DemoSettings(tiny.SPACE, tiny.SEARCH, tiny.RETRAIN)
    with pytest.warns(UserWarning, match=r"genotype\.png was not drawn: RuntimeError: no such colour"):
        result = run_demo(split, settings, runs_dir=tmp_path, progress=False)
    assert read_manifest(result.path)["finished"] is not None
    for name in ("weights.safetensors", "metrics.json", "log.jsonl", "search.png", "comparison-heavy.png"):
        assert (result.path / name).stat().st_size > 0, name
    assert not (result.path / "genotype.png").exists()
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run_demo(split, settings, runs_dir=tmp_path, progress=False)  # the same call draws what is missing
    assert (result.path / "genotype.png").exists()


def test_networks_are_written_before_they_are_evaluated(split, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise ValueError("a test picture is damaged")

    monkeypatch.setattr(demo, "evaluate", broken)
    with pytest.raises(ValueError, match="a test picture is damaged"):
        run_demo(split, DemoSettings(tiny.SPACE, tiny.SEARCH, tiny.RETRAIN), runs_dir=tmp_path, progress=False)
    assert {"weights.safetensors", "genotype.json"} <= {path.name for path in (tmp_path / "demo").iterdir()}
    assert read_log(tmp_path / "demo")


def test_the_loss_after_a_save_is_of_the_same_network(split, tmp_path, monkeypatch):
    """Saving within an epoch puts the network into evaluation and back: batch statistics go on as without it."""
    whole = run("retrain", split, tmp_path, "whole")
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    often = run("retrain", split, tmp_path, "often")
    assert often.log == whole.log
    pairs = zip(whole.net.state_dict().values(), often.net.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert isinstance(whole.net, DerainNet)
