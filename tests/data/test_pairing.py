"""Pairing: names propose, pictures confirm. Folders of every kind of fault, made here, with their truth known."""

import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from samples import background, rain_on, save, save_halves, save_pair

from manas_lite import commands
from manas_lite.data import listing as listing_module
from manas_lite.data import open_split, pictures
from manas_lite.data.__main__ import main
from manas_lite.data.checking import check
from manas_lite.data.layouts import list_folder
from manas_lite.data.listing import DataWarning, Listing
from manas_lite.data.pairing import clear_side, streaks
from manas_lite.data.similarity import cache_file, looks


def pairs_in(folder: Path, rainy: str, clean: str, numbers=range(6), rain: Callable = rain_on) -> Path:
    """Pairs whose two files have paths such as "A/{}.png" below the folder."""
    for i in numbers:
        picture = background(i)
        save(folder / clean.format(i), picture)
        save(folder / rainy.format(i), rain(picture, 1000 + i))
    return folder


def haze(clean: np.ndarray, seed: int) -> np.ndarray:
    """A degradation without streaks."""
    return np.rint(clean * 0.5 + 100).astype(np.uint8)


def told(folder: Path, layout: str | None = None) -> list[str]:
    """Whatever `open_split` warns of, and its refusal."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            open_split(folder, layout=layout)
        except ValueError as error:
            return [str(w.message) for w in caught] + [str(error)]
    return [str(w.message) for w in caught]


def quiet(folder: Path, layout: str | None = None) -> Listing:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return list_folder(folder, layout)


def twins(listing: Listing) -> set[tuple[str, str]]:
    return {
        (p.rainy.path.relative_to(listing.root).as_posix(), p.clean.path.relative_to(listing.root).as_posix())
        for p in listing.pairs
    }


# -- folders of unknown names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rainy", "clean"),
    [
        ("data/{}_rain.png", "gt/{}_clean.png"),
        ("train/data/{}.png", "train/gt/{}.png"),
        ("hazy/{}.png", "clear/{}.png"),
        ("A/{}.png", "B/{}.png"),
        ("B/{}.png", "A/{}.png"),
        ("rainy_frames/{}.png", "sunny_frames/{}.png"),
        ("real_world/{}.png", "real_world_gt/{}.png"),
        ("with_rain/{}.png", "without_rain/{}.png"),
        ("雨/{}.png", "晴/{}.png"),
        ("2/{}.png", "1/{}.png"),
        ("wet/sub/{}.png", "dry/sub/{}.png"),
        ("wet/W{}.png", "dry/D-{:03d}.png"),
        ("wet/{}.png", "label/{}.png"),
        ("{}_wet.png", "{}_dry.png"),
        ("all/dry{}.png", "all/wet{}.png"),
    ],
)
@pytest.mark.parametrize("light", [1.0, 0.8])
def test_unknown_names_are_paired_by_their_pictures(tmp_path: Path, rainy: str, clean: str, light: float) -> None:
    pairs_in(tmp_path, rainy, clean, rain=lambda c, seed: np.rint(rain_on(c, seed) * light).astype(np.uint8))
    listing = quiet(tmp_path)
    assert twins(listing) == {(rainy.format(i), clean.format(i)) for i in range(6)}
    assert listing.photos == listing.problems == []
    assert any("show the same scenes" in message and "6 of 6" in message for message in told(tmp_path))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.from_regex(r"\A[a-zA-Z0-9][a-zA-Z0-9_ -]{0,7}[a-zA-Z0-9]\Z"), min_size=2, max_size=2))
def test_any_two_names_are_paired_rightly_or_refused_naming_both(tmp_path: Path, names: list[str]) -> None:
    rainy, clean = names
    if rainy.lower() == clean.lower():
        return
    shutil.rmtree(tmp_path)
    pairs_in(tmp_path, rainy + "/{}.png", clean + "/{}.png", range(4))
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        try:
            listing = list_folder(tmp_path)
        except ValueError as error:
            assert rainy in str(error) and clean in str(error) and "layout=" in str(error)  # noqa: PT017, PT018
            return
    assert twins(listing) == {(f"{rainy}/{i}.png", f"{clean}/{i}.png") for i in range(4)}


def test_several_rains_parts_and_unknown_names(tmp_path: Path) -> None:
    for part, numbers in (("train", range(12)), ("test", range(20, 23))):
        pairs_in(tmp_path, f"drizzle/{part}/{{}}.png", f"sun/{part}/{{}}.png", numbers)
        pairs_in(tmp_path, f"storm/{part}/{{}}.png", f"sun/{part}/{{}}.png", numbers, lambda c, i: rain_on(c, i + 99))
    with pytest.warns(DataWarning, match="same scenes"):
        split = open_split(tmp_path)
    assert [len(split.train) + len(split.val), len(split.test)] == [12, 3]
    assert {len(scene.rainy) for scene in split.train + split.val + split.test} == {2}


@pytest.mark.parametrize(("first", "second"), [("A/{}.png", "B/{}.png"), ("{}_one.png", "{}_two.png")])
def test_pairs_without_streaks_are_refused_and_the_layout_decides(tmp_path: Path, first: str, second: str) -> None:
    pairs_in(tmp_path, first, second, range(12), haze)
    words = [name.replace("{}", "").strip("_").removesuffix(".png").strip("/") for name in (first, second)]
    (refusal,) = told(tmp_path)
    assert all(word in refusal for word in words)
    assert f"layout='{words[0]}:{words[1]}'" in refusal
    assert twins(quiet(tmp_path, ":".join(words))) == {(first.format(i), second.format(i)) for i in range(12)}
    assert twins(quiet(tmp_path, ":".join(words[::-1]))) == {(second.format(i), first.format(i)) for i in range(12)}
    assert len(quiet(tmp_path, "photos").photos) == 24
    assert sum(map(len, vars(open_split(tmp_path, layout=":".join(words))).values())) == 12


def test_names_and_streaks_that_disagree_are_refused(tmp_path: Path) -> None:
    pairs_in(tmp_path, "clean_pics/{}.png", "rain_pics/{}.png")
    with pytest.raises(ValueError, match="clean_pics and rain_pics show the same scenes"):
        list_folder(tmp_path)


@pytest.mark.parametrize("kind", ["other scenes", "copies", "thumbnails"])
def test_photographs_stay_photographs(tmp_path: Path, kind: str) -> None:
    for i in range(8):
        save(tmp_path / f"2023/{i}.png", background(i))
        other = background(i + 50) if kind == "other scenes" else background(i)
        image = Image.fromarray(other)
        image = image.resize((24, 18), Image.Resampling.LANCZOS) if kind == "thumbnails" else image
        save(tmp_path / f"2024/{i}.png", np.asarray(image))
    listing = quiet(tmp_path)
    assert (len(listing.photos), listing.pairs, listing.remarks) == (16, [], [])


def test_numbered_photographs_are_no_rain_over_each_other(tmp_path: Path) -> None:
    for i, name in enumerate(("1", "1_1", "1_2", "2", "2_1", "3")):
        save(tmp_path / f"{name}.png", background(i))
    assert len(quiet(tmp_path).photos) == 6


@pytest.mark.parametrize(("rainy", "clean"), [("scene{}/rain.png", "scene{}/clean.png"), ("{}/in.png", "{}/gt.jpg")])
def test_a_folder_for_each_scene_with_names_that_say_it(tmp_path: Path, rainy: str, clean: str) -> None:
    listing = quiet(pairs_in(tmp_path, rainy, clean))
    assert twins(listing) == {(rainy.format(i), clean.format(i)) for i in range(6)}
    save(tmp_path / rainy.format(3), rain_on(background(77), 1))
    assert [Path(path) for path, _ in quiet(tmp_path).problems] == [tmp_path / rainy.format(3)]


@pytest.mark.parametrize(
    ("first", "second"),
    [("scene{}/x.png", "scene{}/y.png"), ("s{0}/{0}p.png", "s{0}/{0}q.png")],
)
def test_pairs_that_no_name_tells_apart_are_no_photographs(tmp_path: Path, first: str, second: str) -> None:
    pairs_in(tmp_path, first, second)
    for i in range(40, 45):  # photographs beside them
        save(tmp_path / ("other" * (i % 2)) / f"view {'abcde'[i - 40]}.png", background(i))
    (message,) = told(tmp_path)
    assert "12 of 17 photographs show the scene of another" in message
    assert any(
        f"{tmp_path / a.format(0)} and {tmp_path / b.format(0)}" in message
        for a, b in ((first, second), (second, first))
    )
    assert "layout='photos'" in message
    assert len(quiet(tmp_path, "photos").photos) == 17
    stated = ":".join(Path(name).stem[-1] for name in (first, second))
    assert twins(quiet(tmp_path, stated)) == {(first.format(i), second.format(i)) for i in range(6)}


def test_photographs_of_the_same_scenes_without_streaks_are_told(tmp_path: Path) -> None:
    pairs_in(tmp_path, "s{}/x.png", "s{}/y.png", rain=haze)
    (message,) = told(tmp_path)
    assert "12 of 12 photographs show the scene of another" in message
    assert "taken for photographs" in message
    assert len(quiet(tmp_path).photos) == 12


def frame(seed: int) -> np.ndarray:
    """One view, in which something stands elsewhere in every frame."""
    picture = background(5).copy()
    picture[4 * seed : 4 * seed + 6, 8 : 8 + 4 * seed] = 20 * seed
    return picture


@pytest.mark.parametrize("shift", [0, 1])
def test_of_frames_of_one_camera_names_decide_and_it_is_said(tmp_path: Path, shift: int) -> None:
    for i in range(8):
        save(tmp_path / f"rain/{i}.png", rain_on(frame(i), i))
        save(tmp_path / f"gt/{i}.png", frame((i + shift) % 8))
    listing = quiet(tmp_path)
    assert len(listing.pairs) == 8
    (message,) = listing.remarks
    assert re.search(r"8 of 8 sampled rainy pictures look like a second clean one too", message)
    closer = int(re.search(r"and (\d) even more", message)[1])
    assert closer <= 2 if shift == 0 else closer >= 6
    assert "Names alone say which belong together" in message
    assert message in told(tmp_path)
    assert message in str(check(tmp_path))


def test_copies_of_a_clean_picture_are_no_frames_of_a_camera(tmp_path: Path) -> None:
    for i in range(6):
        save_pair(tmp_path / f"rain/{i}.png", tmp_path / f"gt/{i}.jpg", seed=i // 3, rain=i)
    assert quiet(tmp_path).remarks == []


# -- pairs of two scenes ------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(6)), names=st.sampled_from([("rain", "gt"), ("A", "B"), ("data", "gt")]))
def test_exactly_the_exchanged_pairs_are_named(tmp_path: Path, order: list[int], names: tuple[str, str]) -> None:
    shutil.rmtree(tmp_path)
    for i, other in enumerate(order):
        save(tmp_path / names[0] / f"{i}.png", rain_on(background(i), i))
        save(tmp_path / names[1] / f"{i}.png", background(other))
    wrong = {i for i in range(6) if order[i] != i}
    listing = quiet(tmp_path)
    assert {Path(path).name for path, _ in listing.problems} == {f"{i}.png" for i in wrong}
    for path, reason in listing.problems:
        place = order.index(int(Path(path).stem))
        assert f"{tmp_path / names[1] / str(place)}.png shows it" in reason
    report, messages = str(check(tmp_path)), " ".join(told(tmp_path))
    for i in wrong:
        assert f"{i}.png shows another scene" in report
    for i in sorted(wrong)[:5]:
        assert f"{i}.png shows another scene" in messages


def test_all_shifted_by_one_is_no_swap(tmp_path: Path) -> None:
    for i in range(8):
        save(tmp_path / f"rain/{i}.png", rain_on(background(i), i))
        save(tmp_path / f"gt/{i}.png", background((i + 1) % 8))
    messages = " ".join(told(tmp_path))
    assert "shows another scene" in messages
    assert "swapped" not in messages
    with pytest.raises(ValueError, match=r"8 bad file.*no usable picture remains"):
        open_split(tmp_path, strict=False)
    assert "8  refused" in str(check(tmp_path))


def test_a_rainy_picture_is_not_given_a_clean_one_of_another_scene(tmp_path: Path) -> None:
    for i, name in enumerate(("street", "street_12", "park")):
        save_pair(tmp_path / f"rain/{name}.png", tmp_path / f"gt/{name}.png", seed=i)
    save(tmp_path / "rain/street_13.png", rain_on(background(40), 1))
    save(tmp_path / "rain/park_new.png", rain_on(background(41), 1))
    listing = quiet(tmp_path)
    assert {Path(path).stem for path, _ in listing.problems} == {"street_13", "park_new"}
    assert len(listing.pairs) == 3
    save_pair(tmp_path / "rain/park_2.png", tmp_path / "gt/park.png", seed=2, rain=5)  # a second rain is one
    assert ("rain/park_2.png", "gt/park.png") in twins(quiet(tmp_path))


@pytest.mark.parametrize("names", [("rain", "gt"), ("A", "B")])
def test_unequal_sizes_are_told_when_a_split_is_opened(tmp_path: Path, names: tuple[str, str]) -> None:
    pairs_in(tmp_path, names[0] + "/{}.png", names[1] + "/{}.png")
    save(tmp_path / names[0] / "3.png", background(3, 40, 64))
    assert "3.png is 64x40 but its clean picture" in told(tmp_path)[-1]


def test_pictures_without_structure_or_that_cannot_be_read_are_left_to_their_readers(tmp_path: Path) -> None:
    pairs_in(tmp_path, "rain/{}.png", "gt/{}.png")
    for name in ("rain/black.png", "gt/black.png"):
        save(tmp_path / name, np.zeros((48, 64, 3), np.uint8))
    for name in ("rain/cut.png", "gt/cut.png"):
        (tmp_path / name).write_bytes(b"no picture")
    listing = quiet(tmp_path)
    assert (len(listing.pairs), listing.problems) == (8, [])


# -- which is the rainy one ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("light", [1.0, 0.9, 0.8, 0.5])
@pytest.mark.parametrize("order", ["clean-left", "rain-left"])
def test_side_by_side_whatever_the_light(tmp_path: Path, order: str, light: float) -> None:
    for i in range(5):
        halves = [background(i), np.rint(rain_on(background(i), i) * light).astype(np.uint8)]
        save(tmp_path / f"{i}.png", np.concatenate(halves if order == "clean-left" else halves[::-1], axis=1))
    listing = quiet(tmp_path)
    assert listing.layouts == [order]
    (message,) = told(tmp_path)
    assert f"5 of 5 sampled files show streaks there; layout='{order}'" in message
    assert f"layout='{order}'" in str(check(tmp_path))
    assert told(tmp_path, order) == []


def test_side_by_side_without_streaks_is_refused(tmp_path: Path) -> None:
    for i in range(5):
        save(tmp_path / f"{i}.png", np.concatenate([background(i), haze(background(i), 0)], axis=1))
    assert "side by side" in told(tmp_path)[-1]
    assert "layout='clean-left' or 'rain-left'" in told(tmp_path)[-1]
    assert quiet(tmp_path, "clean-left").layouts == ["clean-left"]


def test_streaks_know_no_exposure_and_haze_has_none() -> None:
    for seed in range(10):
        clean = background(seed, 96, 128)
        rainy = rain_on(clean, seed)
        assert streaks(clean, rainy) > 0.2
        assert streaks(rainy, clean) == pytest.approx(-streaks(clean, rainy), rel=1e-3)
        assert streaks(clean, np.rint(rainy * 0.6).astype(np.uint8)) > 0.2
        assert abs(streaks(clean, haze(clean, 0))) < 0.2
        assert streaks(clean, clean) == 0


@pytest.mark.parametrize(("votes", "side"), [((9, 0, 9), 0), ((0, 3, 3), 1), ((4, 0, 9), None), ((6, 3, 9), None)])
def test_a_majority_is_clear(votes: tuple[int, int, int], side: int | None) -> None:
    assert clear_side(*votes) == side


@pytest.mark.slow
def test_real_rain_is_found_whatever_the_light(real_data: Path, tmp_path: Path) -> None:
    """The halves of real pairs, the rainy one darkened, as a folder of pictures side by side."""
    for name in ("Rain100L/train", "Rain800_groups/training"):
        for pair in list_folder(real_data / name).pairs[:9]:
            rainy = np.rint(pair.rainy.read() * 0.85).astype(np.uint8)
            save(tmp_path / name / pair.rainy.path.name, np.concatenate([rainy, pair.clean.read()], axis=1))
        assert list_folder(tmp_path / name).layouts == ["rain-left"]


# -- what is no data, and what is left out ------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".thumbnails", "#recycle", "$BIN/x"])
@pytest.mark.parametrize("home", ["rain", ".", "norain", "rain/sub"])
def test_hidden_folders_at_any_depth_are_no_data(tmp_path: Path, hidden: str, home: str) -> None:
    pairs_in(tmp_path, "rain/sub/{}.png", "norain/sub/{}.png", range(12))
    before = open_split(tmp_path)
    save(tmp_path / home / hidden / "1-checkpoint.png", background(1))
    save(tmp_path / home / hidden / "1.png", background(1))
    assert told(tmp_path) == []
    assert open_split(tmp_path) == before
    assert "2 hidden picture(s), which are no data" in str(check(tmp_path))


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    pairs_in(tmp_path, "rain/{}.png", "gt/{}.png", range(12))
    for i in range(4):
        save(tmp_path / f"masks/{i}.png", background(70 + i))
    (tmp_path / "raw").mkdir()
    for name in ("a.cr2", "b.cr2", "c.arw"):
        (tmp_path / "raw" / name).write_bytes(b"II\0\0raw")
    (tmp_path / "readme.md").write_text("text is no picture, and nobody need be told")
    messages = " ".join(told(tmp_path))
    assert "4 picture(s) are not used" in messages
    assert "1 .arw, 2 .cr2" in messages
    assert ".md" not in messages
    shutil.rmtree(tmp_path / "rain")
    shutil.rmtree(tmp_path / "gt")
    shutil.rmtree(tmp_path / "masks")
    with pytest.raises(ValueError, match=r"no pictures found.*2 \.cr2"):
        list_folder(tmp_path)


def test_heic_photographs_are_read(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    for i in range(4):
        image = Image.fromarray(background(i))
        image.save(tmp_path / f"{i}.png")
        heif.from_pillow(Image.fromarray(background(i + 10))).save(tmp_path / f"IMG_{i}.HEIC", quality=95)
    split = open_split(tmp_path)
    scenes = split.train + split.val + split.test
    assert len(scenes) == 8
    for scene in scenes:
        number = int(scene.name.removeprefix("IMG_")) + 10 * scene.name.startswith("IMG_")
        assert np.abs(scene.clean.read().astype(int) - background(number)).mean() < 8  # of about 60 between two of them


# -- tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "rainy,clean\nin/0.png,out/0.png\nin/1.png,out/1.png\n",
        "rainy, clean\nin/0.png, out/0.png\nin/1.png, out/1.png\n",
        "Rainy;Clean\nin/0.png;out/0.png\nin/1.png;out/1.png\n",
        "clean\trainy\nout/0.png\tin/0.png\nout/1.png\tin/1.png\n",
        "\ufeffrainy,clean\r\nin\\0.png,out\\0.png\r\nin\\1.png,out\\1.png\r\n",
        'rainy,clean\n"in/0.png" ,"out/0.png"\nin/1.png ,out/1.png\n',
    ],
)
def test_tables_as_people_write_them(tmp_path: Path, text: str) -> None:
    pairs_in(tmp_path, "in/{}.png", "out/{}.png", range(2))
    (tmp_path / "pairs.csv").write_bytes(text.encode())
    listing = quiet(tmp_path)
    assert listing.layouts == ["csv"]
    assert twins(listing) == {(f"in/{i}.png", f"out/{i}.png") for i in range(2)}
    assert {pair.background for pair in listing.pairs} == {"out/0", "out/1"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("in/0.png,out/0.png", "line 5 repeats .*line 2"),
        ("in/2.png,in/2.png", "line 5 names .*in/2.png as rainy, and as clean"),
        ("out/0.png,out/2.png", "line 5 names .*out/0.png as rainy, which .*line 2 names as clean"),
        ("in/9.png,out/2.png", "line 5 names in/9.png, which is not there"),
        ("in/2.png,out/Gone.png", "line 5 names out/Gone.png, which is not there"),
        ("in/2.png,out/1.png", "2.png shows another scene than .*out/1.png"),
    ],
)
def test_faults_of_a_row_are_told_with_their_line(tmp_path: Path, row: str, reason: str) -> None:
    pairs_in(tmp_path, "in/{}.png", "out/{}.png", range(4))
    rows = ["rainy,clean", "in/0.png,out/0.png", "in/1.png,out/1.png", "in/3.png,out/3.png", row]
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    assert re.search(reason, " ".join(told(tmp_path)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert twins(list_folder(tmp_path)) == {(f"in/{i}.png", f"out/{i}.png") for i in (0, 1, 3)}


@pytest.mark.parametrize(
    "line",
    [
        "in put/my {0}.png tar get/{0} a.png",
        "in put/my {0}.png,tar get/{0} a.png",
        r"in put\my {0}.png ; tar get\{0} a.png",
        '"in put/my {0}.png" "tar get/{0} a.png"',
    ],
)
def test_an_index_with_blanks_in_its_names(tmp_path: Path, line: str) -> None:
    pairs_in(tmp_path, "in put/my {}.png", "tar get/{} a.png")
    (tmp_path / "train.txt").write_text("".join(line.format(i) + "\n" for i in range(6)))
    listing = quiet(tmp_path)
    assert listing.layouts == ["index"]
    assert twins(listing) == {(f"in put/my {i}.png", f"tar get/{i} a.png") for i in range(6)}
    assert {pair.part for pair in listing.pairs} == {"train"}


def test_an_index_that_does_not_parse_is_told(tmp_path: Path) -> None:
    pairs_in(tmp_path, "rain/{}.png", "gt/{}.png", range(12))
    (tmp_path / "train.txt").write_text("elsewhere/1.png other/1.png\nelsewhere/2.png other/2.png\n")
    assert any("train.txt looks like an index" in message and "line 1" in message for message in told(tmp_path))
    lines = [f"rain/{i}.png gt/{i}.png" for i in range(11)] + ["rain/11.png gt/eleven.png"]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    assert "train.txt, line 12 names no two pictures that are there" in told(tmp_path)[-1]


@pytest.mark.parametrize(
    "line", ["in/{0}.png\tout/{0}.png\t0.5", "{0}: in/{0}.jpg | out/{0}.jpg |", "in/{0}.png, out/{0}.png x"]
)
def test_an_index_of_another_form_is_told(tmp_path: Path, line: str) -> None:
    pairs_in(tmp_path, "in/{}.png", "out/{}.png")
    (tmp_path / "list.txt").write_text("rainy clean\n" + "".join(line.format(i) + "\n" for i in range(6)))
    assert any("list.txt looks like an index of pairs" in message for message in told(tmp_path))
    (tmp_path / "list.txt").write_text("".join(f"{i}.png A street in the rain.\n" for i in range(6)))  # captions
    assert not any("list.txt" in message for message in told(tmp_path))


def test_a_text_of_one_endless_line_is_not_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs_in(tmp_path, "rain/{}.png", "gt/{}.png")
    asked = []
    monkeypatch.setattr(listing_module, "_picture", lambda folder, name: asked.append(name))
    (tmp_path / "log.txt").write_text("a.png " * 100_000)
    assert any("log.txt looks like an index" in message for message in told(tmp_path))
    assert asked == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("rainy,clean\n" + "x" * 200_000 + ",gt/0.png\n", 2),
        ('rainy,clean\nrain/0.png,gt/0.png\n"' + "rain/1.png,gt/1.png\n" * 9000, 3),
        ('"rainy,clean\n' + "rain/1.png,gt/1.png\n" * 9000, 1),
    ],
)
def test_a_table_that_csv_cannot_read_is_one_line(tmp_path: Path, capsys, text: str, line: int) -> None:
    pairs_in(tmp_path, "rain/{}.png", "gt/{}.png", range(2))
    (tmp_path / "pairs.csv").write_text(text)
    assert main(["check", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {tmp_path / 'pairs.csv'}, line ")
    assert told.count("\n") == 1
    assert int(re.search(r"line (\d+)", told)[1]) >= line


@pytest.mark.parametrize("depth", [40, 1200])
def test_folders_as_deep_as_no_set_has_are_told_and_not_followed(tmp_path: Path, depth: int) -> None:
    pairs_in(tmp_path, "rain/{}.png", "gt/{}.png")
    for home in (tmp_path, tmp_path / "rain"):
        place = os.getcwd()
        os.chdir(home)
        try:
            for _ in range(depth):
                os.mkdir("d")
                os.chdir("d")
        finally:
            os.chdir(place)
    try:
        with pytest.warns(DataWarning, match="lies more than 32 folders deep, and is not read"):
            assert len(list_folder(tmp_path).pairs) == 6
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d", tmp_path / "rain"], check=True)  # pytest cannot go so deep either


# -- what was seen is kept ----------------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Every picture that is decoded, in a new cache."""
    monkeypatch.setenv("MANAS_LITE_CACHE", str(tmp_path / "cache"))
    seen: list[Path] = []
    read = pictures.read_image
    monkeypatch.setattr(pictures, "read_image", lambda path: seen.append(Path(path)) or read(path))
    return seen


@pytest.mark.parametrize("names", [("rain", "gt"), ("A", "B")])
def test_the_second_opening_decodes_a_constant_number(
    tmp_path: Path, reads: list[Path], names: tuple[str, str]
) -> None:
    folder = pairs_in(tmp_path / "set", names[0] + "/{}.png", names[1] + "/{}.png", range(60))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = open_split(folder)
        assert set(reads) == set(folder.rglob("*.png"))
        reads.clear()
        assert open_split(folder) == first
        assert len(reads) <= 6 * 9  # samples of nine pairs, asked for streaks and for copies
        changed = folder / names[0] / "7.png"
        save(changed, rain_on(background(7), 1))
        os.utime(changed, (1, 1))
        reads.clear()
        open_split(folder)
        assert changed in reads
        save(changed, background(59))  # another scene now
        os.utime(changed, (2, 2))
        with pytest.raises(ValueError, match=r"7\.png shows another scene"):
            open_split(folder)


def test_a_cache_that_cannot_be_used_is_told_and_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pairs_in(tmp_path / "set", "rain/{}.png", "gt/{}.png", range(12))
    usual = open_split(folder)
    monkeypatch.setenv("MANAS_LITE_CACHE", str(tmp_path / "cache"))
    cache_file().parent.mkdir()
    cache_file().write_bytes(b"no data base " * 100)
    with pytest.warns(DataWarning, match=r"looks.sqlite cannot be used .*set MANAS_LITE_CACHE"):
        assert open_split(folder) == usual


def test_looks_are_the_same_from_the_cache(tmp_path: Path, reads: list[Path]) -> None:
    files = [pictures.Picture(save(tmp_path / f"{i}.png", background(i, 40 + i, 64))) for i in range(5)]
    first, again = looks(files), looks(files[::-1])
    assert len(reads) == 5
    np.testing.assert_array_equal(first.hashes, again.hashes[::-1])
    np.testing.assert_array_equal(first.sizes, [[40 + i, 64] for i in range(5)])
    np.testing.assert_array_equal(first.sizes, again.sizes[::-1])


# -- the layout, wherever data are named --------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["search", "retrain", "demo"])
def test_commands_take_a_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    folder, taken = pairs_in(tmp_path, "A/{}.png", "B/{}.png", range(12), haze), []

    def take(*positional: object, **named: object) -> None:
        taken.extend([*positional, *named.values()])
        raise ValueError("enough")

    monkeypatch.setattr(commands, {"demo": "run_demo"}.get(command, command), take)
    options = ["--genotype", "hand_made:teach"] if command == "retrain" else []
    assert commands.run(command, "x", [*options, "--data", str(folder), "--layout", "B:A"]) == 2
    assert open_split(folder, layout="B:A") in taken


@pytest.mark.slow
def test_evaluate_takes_a_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(pairs_in(tmp_path, "A/{}.png", "B/{}.png", range(12), haze))
    usual = ["--weights", "rain-lite", "--part", "all", "--data", folder]
    assert commands.run("evaluate", "x", usual) == 2
    assert "--layout A:B" in capsys.readouterr().err
    assert commands.run("evaluate", "x", [*usual, "--layout", "A:B"]) == 0
    assert "12 of 12 scenes, 12 picture(s)" in capsys.readouterr().out


def test_one_text_names_a_folder_and_its_layout(tmp_path: Path) -> None:
    """The parameter `data` of a notebook."""
    folder = pairs_in(tmp_path / "set#1", "A/{}.png", "B/{}.png", range(12), haze)
    assert open_split(f"{folder}#B:A") == open_split(folder, layout="B:A") != open_split(folder, layout="A:B")
    with pytest.raises(ValueError, match="says how a folder is laid out"):
        open_split(f"{tmp_path}/gone#B:A")


def test_a_layout_without_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'photos' is none"):
        open_split("photos", layout="A:B")
    save_halves(tmp_path / "1.png", seed=1)
    with pytest.raises(ValueError, match="RAINY:CLEAN"):
        open_split(tmp_path, layout="A:B:C")


def test_scenes_and_leaks_name_what_they_leave_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs_in(tmp_path, "rain/{}.png", "gt/{}.png")
    save(tmp_path / "rain/lonely.png", background(90))
    for arguments in (["scenes", str(tmp_path)], ["leaks", str(tmp_path), str(tmp_path)]):
        assert main(arguments) == 0
        assert "lonely.png has no clean twin" in capsys.readouterr().err


# -- the bug reports as they were played, where they are at hand --------------------------------------------------


@pytest.fixture
def case(repository: Path, tmp_path: Path) -> Callable[[str], Path]:
    def unpack(name: str) -> Path:
        archive = repository.parent / "shared" / "cases" / "data" / f"{name}.zip"
        if not archive.is_file():
            pytest.skip("the reported folders are not at hand")
        shutil.unpack_archive(archive, tmp_path / name)
        return tmp_path / name

    return unpack


@pytest.mark.parametrize(
    ("name", "pairs", "problems"),
    [
        ("case_01_unknown_folder_names", 4, set()),
        ("case_01b_unknown_folder_names", 4, set()),
        ("case_02_notebook_copies", 4, set()),
        ("case_03_two_clean_pictures_exchanged", 2, {"1.png", "2.png"}),
        ("case_04_side_by_side_darker_rain", 4, set()),
        ("case_05_missing_twin_pairs_elsewhere", 3, {"street_13.png"}),
        ("case_06_index_with_spaces", 4, set()),
        ("case_07_csv_same_file_twice", 3, {"pairs.csv, line 2"}),
        ("case_08_csv_backslashes", 4, set()),
    ],
)
def test_reported_folders(case: Callable[[str], Path], name: str, pairs: int, problems: set[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        listing = list_folder(case(name))
    assert (len(listing.pairs), listing.photos) == (pairs, [])
    assert {Path(path).name for path, _ in listing.problems} == problems
    assert not name.startswith("case_04") or listing.layouts == ["clean-left"]
