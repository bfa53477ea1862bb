"""`open_split`: what a user may name, and what becomes of it."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from samples import background, save, save_halves, save_pair

from manas_lite.data import Picture, RainyPicture, open_split
from manas_lite.data.listing import DataWarning
from manas_lite.data.similarity import signatures, similar_pairs


def sizes(split) -> tuple[int, int, int]:
    return len(split.train), len(split.val), len(split.test)


def test_split_is_returned_as_it_is(pairs_folder) -> None:
    split = open_split(pairs_folder(10))
    assert open_split(split) is split


def test_pairs_in_one_line(pairs_folder) -> None:
    folder = pairs_folder(20)
    split = open_split(folder)
    assert sizes(split) == (16, 2, 2)
    assert open_split(str(folder)) == split
    assert open_split(folder, seed=1) != split
    assert all(len(scene.rainy) == 1 for scene in split.train)


def test_photographs_in_one_line(tmp_path: Path) -> None:
    for i in range(10):
        save(tmp_path / f"IMG_{i}.jpg", background(i))
    split = open_split(tmp_path, levels=("light", 0.9))
    assert sizes(split) == (8, 1, 1)
    scene = split.train[0]
    assert scene.labels == ("light", "0.9")
    assert all(isinstance(picture, RainyPicture) for picture in scene.rainy)
    rainy, clean = scene.read()
    assert (rainy.astype(int).mean(axis=(1, 2, 3)) > clean.mean()).all()
    with pytest.raises(ValueError, match="at least one rain level"):
        open_split(tmp_path, levels=())


def test_copies_of_a_photograph_stay_on_one_side(tmp_path: Path) -> None:
    for i in range(12):
        save(tmp_path / f"IMG_{i}.png", background(i))
        save(tmp_path / "copies" / f"IMG_{i} (1).jpg", background(i))
    for seed in range(3):
        split = open_split(tmp_path, seed=seed)
        assert sizes(split) == (20, 2, 2)
        shown = [{s.name.split("_")[1].split()[0] for s in part} for part in (split.train, split.val, split.test)]
        assert sum(map(len, shown)) == 12
    assert len({s.name for part in (split.train, split.val, split.test) for s in part}) == 24  # names are their own


@pytest.mark.parametrize("target", [".", "album", "album/holiday"])
def test_links_to_folders_above_or_already_read_are_not_followed(tmp_path: Path, target: str) -> None:
    home = tmp_path / "album" / "holiday"
    for i in range(6):
        save(home / f"IMG_{i}.png", background(i))
    save(tmp_path / "outside.png", background(90))
    (home / "link").symlink_to(tmp_path / target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split = open_split(tmp_path / "album")
    assert sorted(s.name for s in split.train + split.val + split.test) == [f"holiday/IMG_{i}" for i in range(6)]


def test_rain_of_judged_pictures_does_not_depend_on_the_seed(tmp_path: Path) -> None:
    for part, count in (("train", 12), ("test", 3), ("val", 3)):
        for i in range(count):
            save(tmp_path / part / f"{i}.png", background(i + 20 * len(part) + (7 if part == "val" else 0)))
    first, other = open_split(tmp_path, seed=0), open_split(tmp_path, seed=1)
    assert (first.val, first.test) == (other.val, other.test)
    assert {s.clean for s in first.train} == {s.clean for s in other.train}
    assert not {p for s in first.train for p in s.rainy} & {p for s in other.train for p in s.rainy}


def test_bundled_photographs() -> None:
    split = open_split("photos", seed=3)
    assert all(sizes(split))
    assert open_split("photos", seed=4).test == split.test
    assert all(scene.labels == ("light", "medium", "heavy") for scene in split.train + split.val + split.test)
    clean = [[scene.clean for scene in part] for part in (split.train, split.val, split.test)]
    hashes = [signatures(pictures) for pictures in clean]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert similar_pairs(hashes[a], hashes[b]) == []  # no background in two parts, to the eye either


def test_folder_called_photos_is_not_passed_over_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(10):
        save(tmp_path / f"photos/{i}.png", background(i))
    monkeypatch.chdir(tmp_path)
    with pytest.warns(DataWarning, match="say './photos'"):
        assert open_split("photos").sha256 != open_split("./photos").sha256


def test_named_parts_are_kept_and_missing_ones_carved(tmp_path: Path) -> None:
    for i in range(20):
        save_pair(tmp_path / f"a/train/rain/{i}.png", tmp_path / f"a/train/norain/{i}.png", seed=i)
    for i in range(4):
        save_pair(tmp_path / f"a/test_sample/rain/{i}.png", tmp_path / f"a/test_sample/norain/{i}.png", seed=100 + i)
    split = open_split(tmp_path / "a")
    assert sizes(split) == (18, 2, 4)
    assert {scene.clean.path.parts[-3] for scene in split.test} == {"test_sample"}
    assert {scene.clean.path.parts[-3] for scene in split.train + split.val} == {"train"}


def test_equal_numbers_in_folders_of_two_parts_are_no_leak_but_equal_pictures_are(tmp_path: Path) -> None:
    def pairs(part: str, number: int, seed: int) -> None:
        save_pair(tmp_path / f"rain_{part}/{number}.png", tmp_path / f"norain_{part}/{number}.png", seed=seed)

    for i in range(10):
        pairs("train", i, seed=i)
        pairs("test", i, seed=50 + i)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sizes(open_split(tmp_path)) == (9, 1, 10)
    pairs("test", 77, seed=4)
    with pytest.warns(DataWarning, match="1 training scene"):
        split = open_split(tmp_path)
    assert sizes(split) == (8, 1, 11)
    assert "4" not in {scene.clean.path.stem for scene in split.train + split.val}


def test_training_backgrounds_of_the_test_set_are_left_out(tmp_path: Path) -> None:
    for i in range(12):
        save_pair(tmp_path / f"train/input/{i}.png", tmp_path / f"train/target/{i}.png", seed=i)
    for i in (2, 5, 60):
        save_pair(tmp_path / f"test/input/{i}.png", tmp_path / f"test/target/{i}.png", seed=i, rain=1)
    with pytest.warns(DataWarning, match="2 training scene"):
        split = open_split(tmp_path)
    assert sizes(split) == (9, 1, 3)
    names = {scene.clean.path.stem for scene in split.train + split.val}
    assert names == set(map(str, range(12))) - {"2", "5"}


def test_one_background_under_two_rains_does_not_end_the_search_for_leaks(tmp_path: Path) -> None:
    for i in range(12):
        save_pair(tmp_path / f"train/input/{i}.png", tmp_path / f"train/target/{i}.png", seed=i)
    for i in (3, 60, 61):
        save_pair(tmp_path / f"test/input/{i}.png", tmp_path / f"test/target/{i}.png", seed=i, rain=1)
    for part, i in (("train", 0), ("test", 60)):
        home = tmp_path / part
        save_pair(home / f"input/{i}_2.png", home / f"target/{i}.png", seed=i, rain=2)
    with pytest.warns(DataWarning, match="1 training scene"):
        split = open_split(tmp_path)
    assert sizes(split) == (10, 1, 3)
    assert "3" not in {scene.clean.path.stem for scene in split.train + split.val}


def test_pictures_under_other_names_of_a_table_leak_too(tmp_path: Path) -> None:
    rows = ["rainy,clean,scene,part"]
    for i, part in enumerate(["train"] * 12 + ["test"] * 2):
        save_pair(tmp_path / f"r{i}.png", tmp_path / f"c{i}.png", seed=i % 12)
        rows.append(f"r{i}.png,c{i}.png,{part}-{i},{part}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    with pytest.warns(DataWarning, match="2 training scene"):
        assert sizes(open_split(tmp_path)) == (9, 1, 2)


def test_validation_backgrounds_of_the_test_set_are_left_out(tmp_path: Path) -> None:
    for part, seeds in (("train", range(9)), ("val", range(20, 23)), ("test", range(22, 25))):
        for i in seeds:
            home = tmp_path / part
            save_pair(home / f"input/{part}{i}.png", home / f"target/{part}{i}.png", seed=i, rain=len(part))
    with pytest.warns(DataWarning, match="1 validation scene.*in test"):
        split = open_split(tmp_path)
    assert sizes(split) == (9, 2, 3)
    assert {scene.clean.path.stem for scene in split.val} == {"val20", "val21"}


def test_training_backgrounds_that_a_table_also_tests_are_left_out(tmp_path: Path) -> None:
    rows = ["rainy,clean,scene,part"]
    for i in range(14):
        save_pair(tmp_path / f"r{i}.png", tmp_path / f"c{i}.png", seed=i)
        rows.append(f"r{i}.png,c{i}.png,{i % 12},{'test' if i > 11 else 'train'}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    with pytest.warns(DataWarning, match="2 training scene"):
        split = open_split(tmp_path)
    assert sizes(split) == (9, 1, 2)


def test_test_set_alone(tmp_path: Path) -> None:
    """As a folder it is divided, with a warning; by its registered name it is a test set and nothing else."""
    home = tmp_path / "rain13k" / "test" / "Rain100L"
    for i in range(5):
        save_pair(home / "input" / f"{i}.png", home / "target" / f"{i}.png", seed=i)
    with pytest.warns(DataWarning, match="5 test pairs, the registry states 100"):
        split = open_split("rain100l", root=tmp_path)
    assert sizes(split) == (0, 0, 5)
    with pytest.warns(DataWarning, match="a test set and no training set"):
        assert sizes(open_split(tmp_path / "rain13k")) == (3, 1, 1)


def test_what_names_no_part_beside_a_test_set_is_for_training(tmp_path: Path) -> None:
    """SPA-Data, whose training index is called real_world.txt: by its name and as a folder."""
    home = tmp_path / "spa-data"
    for file, numbers in (("real_test_1000.txt", range(3)), ("real_world.txt", range(3, 13))):
        for i in numbers:
            save_pair(home / f"rain/{i}.png", home / f"gt/{i}.png", seed=i)
        (home / file).write_text("".join(f"/rain/{i}.png /gt/{i}.png\n" for i in numbers))
    with pytest.warns(DataWarning, match="3 test pairs, the registry states 1,000"):
        registered = open_split("spa-data", root=tmp_path)
    with pytest.warns(DataWarning, match=r"10 of 13 name no known part .*rain/3.png: they are for training"):
        folder = open_split(home)
    for split in (registered, folder):
        assert sizes(split) == (9, 1, 3)
        assert {scene.clean.path.stem for scene in split.test} == {"0", "1", "2"}


def test_parts_that_a_set_calls_otherwise(tmp_path: Path) -> None:
    """RainCityscapes tests on what it calls val."""
    for part, count in (("train", 10), ("val", 2)):
        for i in range(count):
            name, home = f"city_{i:06d}_000019_leftImg8bit", tmp_path / "raincityscapes"
            for k in range(2):
                rainy = home / "leftImg8bit_rain" / part / "city" / f"{name}_rain_alpha_0.0{k + 1}_pattern_1.png"
                save_pair(
                    rainy, home / "leftImg8bit" / part / "city" / f"{name}.png", seed=i + 30 * (part == "val"), rain=k
                )
    with pytest.warns(DataWarning, match="the registry states"):
        split = open_split("raincityscapes", root=tmp_path)
    assert sizes(split) == (9, 1, 2)
    assert {len(s.rainy) for s in split.train + split.val + split.test} == {2}


def test_backgrounds_hidden_in_other_names_stay_together(tmp_path: Path) -> None:
    for i in range(30):
        save_halves(tmp_path / f"{i}.png", seed=i % 10, rain=i)
    split = open_split(tmp_path)
    assert sizes(split) == (8, 1, 1)
    assert all(len(scene.rainy) == 3 for scene in split.train + split.val + split.test)


def test_near_duplicates_of_another_crop_are_never_separated(tmp_path: Path) -> None:
    """They cannot be one scene (the pixels do not lie on each other), but they are one background."""
    for i in range(12):
        whole = background(i, 96, 128)
        save(tmp_path / f"target/{i}.png", whole)
        save(tmp_path / f"input/{i}.png", whole)
        save(tmp_path / f"target/{i + 50}.png", whole[3:, :-4])
        save(tmp_path / f"input/{i + 50}.png", whole[3:, :-4])
    for seed in range(4):
        split = open_split(tmp_path, seed=seed)
        homes = [{int(s.clean.path.stem) % 50 for s in part} for part in (split.train, split.val, split.test)]
        assert sum(map(len, homes)) == 12
        assert sum(sizes(split)) == 24


def test_files_without_a_twin_stop_or_are_left_out(pairs_folder) -> None:
    folder = pairs_folder(10)
    save(folder / "input" / "lonely.png", background(99))
    with pytest.raises(ValueError, match=r"lonely.png has no clean twin.*strict=False"):
        open_split(folder)
    with pytest.warns(DataWarning, match=r"1 bad file\(s\) left out: .*lonely.png"):
        assert sum(sizes(open_split(folder, strict=False))) == 10


def test_broken_files_are_left_out_on_request(pairs_folder) -> None:
    folder = pairs_folder(12)
    (folder / "input" / "3.png").write_bytes(b"")
    save(folder / "target" / "5.png", background(5, 20, 20))
    with pytest.warns(DataWarning, match=r"2 bad file\(s\) left out"):
        split = open_split(folder, strict=False)
    assert {s.clean.path.stem for s in split.train + split.val + split.test} == set(map(str, range(12))) - {"3", "5"}


def test_nothing_usable_is_an_error(pairs_folder) -> None:
    folder = pairs_folder(3)
    for file in folder.rglob("*.png"):
        file.write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"6 bad file.*and 1 more; no usable picture remains"):
        open_split(folder, strict=False)


def test_wrong_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no set is called 'rain1k'"):
        open_split("rain1k")
    with pytest.raises(FileNotFoundError, match="no such folder; give a folder of pictures, a set's name, or 'photos'"):
        open_split(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_split("some/where")


# -- real samples -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "parts", "rains"),
    [("Rain100L", (180, 20, 8), {1}), ("Rain800_groups", (27, 4, 4), {2, 3, 4, 5}), ("SIRR_val", (9, 1, 1), {1})],
)
def test_real_sets_open(real_data: Path, folder: str, parts: tuple[int, ...], rains: set[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split = open_split(real_data / folder)
    assert sizes(split) == parts
    assert {len(scene.rainy) for scene in split.train} <= rains
    rainy, clean = split.test[0].read()
    assert rainy.shape[1:] == clean.shape
    np.testing.assert_array_equal(Picture(split.test[0].clean.path, split.test[0].clean.half).read(), clean)
