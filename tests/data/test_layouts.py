"""Every published layout, imitated to the letter on small pictures, and the real samples where they are present."""

import json
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from samples import background, rain_on, save, save_halves, save_pair

from manas_lite.data.grouping import group_scenes
from manas_lite.data.layouts import DataWarning, list_folder
from manas_lite.data.pairing import rainy_half


def rains(folder: Path, layout: str | None = None, by: str = "auto") -> dict[str | None, list[int]]:
    """R of every scene by part, after checking that each rainy picture stands with its own clean one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        listing = list_folder(folder, layout)
    assert listing.problems == []
    parts = group_scenes(listing, by)
    for scenes in parts.values():
        for scene in scenes:
            rainy, clean = scene.read()
            for version in rainy.astype(int):
                assert (version - clean >= 0).all()  # only rain lies between them
                assert 0 < (version != clean).mean() < 0.5
    return {part: [len(scene.rainy) for scene in scenes] for part, scenes in parts.items()}


def test_rain13k_and_its_tests(tmp_path: Path) -> None:
    for i in range(3):
        home = tmp_path / "train" / "Rain13K"
        save_pair(home / "input" / f"{i}.jpg", home / "target" / f"{i}.jpg", seed=i)
    for i in range(4):
        home = tmp_path / "test" / ("Rain100L" if i % 2 else "Test100")
        save_pair(home / "input" / f"{i}.png", home / "target" / f"{i}.png", seed=10 + i)
    listing = list_folder(tmp_path)
    assert Counter(pair.part for pair in listing.pairs) == {"train": 3, "test": 4}
    assert listing.layouts == ["folders"]


def test_did_mdn_three_densities_of_one_number_are_one_scene(tmp_path: Path) -> None:
    for i in (1, 2, 10):
        for k, density in enumerate(("Heavy", "Medium", "Light")):
            path = tmp_path / "DID-MDN-training" / f"Rain_{density}" / "train2018new" / f"{i}.png"
            save_halves(path, seed=i, rain=k, order="rain-left")
        save_halves(tmp_path / "DID-MDN-test" / f"{i}.png", seed=20 + i, order="rain-left")
    assert rains(tmp_path) == {"train": [3, 3, 3], "test": [1, 1, 1]}
    assert rains(tmp_path, "rain-left", by="name") == {"train": [3, 3, 3], "test": [1, 1, 1]}
    listing = list_folder(tmp_path)
    assert listing.layouts == ["rain-left"]
    scene = group_scenes(listing)["train"][0]
    assert sorted(scene.labels) == ["heavy", "light", "medium"]


def test_old_rain100l_all_in_one_folder(tmp_path: Path) -> None:
    for i in range(1, 4):
        save_pair(tmp_path / f"rain-{i:03d}.png", tmp_path / f"norain-{i:03d}.png", seed=i)
    assert rains(tmp_path) == {None: [1, 1, 1]}
    assert list_folder(tmp_path).layouts == ["flat"]


def test_old_rain100l_with_a_rainy_folder_inside(tmp_path: Path) -> None:
    for i in range(1, 4):
        test = tmp_path / "test"
        save_pair(test / "rainy" / f"rain-{i:03d}.png", test / f"norain-{i:03d}.png", seed=i)
        save_pair(tmp_path / "train" / f"rain-{i}.png", tmp_path / "train" / f"norain-{i}.png", seed=9 + i)
    assert rains(tmp_path) == {"train": [1, 1, 1], "test": [1, 1, 1]}


def test_rain100l_packed_with_one_name_in_two_folders(tmp_path: Path) -> None:
    for i in (1, 2, 10):
        save_pair(tmp_path / "rain" / f"norain-{i}.png", tmp_path / "norain" / f"norain-{i}.png", seed=i)
    assert rains(tmp_path) == {None: [1, 1, 1]}
    assert [s.name for s in group_scenes(list_folder(tmp_path))[None]] == ["norain-1", "norain-2", "norain-10"]


def test_parts_in_the_names_of_the_folders_keep_equal_numbers_apart(tmp_path: Path) -> None:
    for part, first in (("train", 0), ("test", 50)):
        for i in range(3):
            save_pair(tmp_path / f"rain_{part}/{i}.png", tmp_path / f"norain_{part}/{i}.png", seed=first + i)
    assert rains(tmp_path) == {"train": [1] * 3, "test": [1] * 3}
    assert {pair.background for pair in list_folder(tmp_path).pairs} == {
        f"{part}/{i}" for part in ("train", "test") for i in range(3)
    }


def test_rain200_scaled_names(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for i in (1, 12, 2):
            home = tmp_path / part
            save_pair(
                home / "rain" / "X2" / f"norain-{i}x2.png", home / "norain" / f"norain-{i}.png", seed=i + len(part)
            )
    assert rains(tmp_path) == {"train": [1, 1, 1], "test": [1, 1, 1]}


@pytest.mark.parametrize("order", ["clean-left", "rain-left"])
def test_side_by_side_in_both_orders(tmp_path: Path, order: str) -> None:
    for i in range(6):
        save_halves(tmp_path / "training" / f"{i}.jpg", seed=i // 2, rain=i, order=order)
    listing = list_folder(tmp_path)
    assert listing.layouts == [order]
    assert Counter(len(s.rainy) for s in group_scenes(listing)["train"]) == {2: 3}  # by perceptual hash


def test_swapped_side_by_side_is_told(tmp_path: Path) -> None:
    for i in range(5):
        save_halves(tmp_path / f"{i}.png", seed=i, order="rain-left")
    with pytest.warns(DataWarning, match="5 of 5 pairs .*rain and clean are probably swapped"):
        list_folder(tmp_path, "clean-left")


def test_swapped_folders_are_told(tmp_path: Path) -> None:
    for i in range(5):
        save_pair(tmp_path / "norain" / f"{i}.png", tmp_path / "rain" / f"{i}.png", seed=i)
    with pytest.warns(DataWarning, match="probably swapped"):
        list_folder(tmp_path)


@pytest.mark.parametrize("flat", [True, False])
def test_rain1400_fourteen_rains_a_scene(tmp_path: Path, flat: bool) -> None:
    for i in (1, 2, 11):
        for j in range(1, 15):
            rainy = tmp_path / ("" if flat else "rainy_image") / f"{i}_{j}.png"
            save_pair(rainy, tmp_path / ("" if flat else "ground_truth") / f"{i}.png", seed=i, rain=j)
    assert rains(tmp_path) == {None: [14, 14, 14]}
    assert list_folder(tmp_path).named  # no perceptual hash needed


def test_outdoor_rain_fifteen_rains_a_scene(tmp_path: Path) -> None:
    for i in (1, 2):
        for k, streak in enumerate((80, 85, 90, 95, 100)):
            for fog in (4, 5, 6):
                name = f"im_{i:04d}_s{streak}_a{fog:02d}.png"
                save_pair(
                    tmp_path / "train/in" / name, tmp_path / f"train/gt/im_{i:04d}.png", seed=i, rain=10 * k + fog
                )
    assert rains(tmp_path) == {"train": [15, 15]}


def test_spa_index_file(tmp_path: Path) -> None:
    lines = []
    for i in range(4):
        save_pair(tmp_path / f"rain/{i:03d}.png", tmp_path / f"gt/{i:03d}gt.png", seed=i)
        lines.append(f"/rain/{i:03d}.png /gt/{i:03d}gt.png")
    (tmp_path / "real_test_1000.txt").write_text("\n".join(lines) + "\n")
    assert rains(tmp_path) == {"test": [1, 1, 1, 1]}
    assert list_folder(tmp_path).layouts == ["index"]


def index(folder: Path, name: str, numbers: range) -> None:
    """Pairs rain/N.png and gt/N.png, and an index of them."""
    for i in numbers:
        save_pair(folder / f"rain/{i}.png", folder / f"gt/{i}.png", seed=i)
    (folder / name).write_text("".join(f"rain/{i}.png gt/{i}.png\n" for i in numbers))


def test_every_index_file_of_a_folder_is_read(tmp_path: Path) -> None:
    index(tmp_path, "test.txt", range(3))
    index(tmp_path, "train.txt", range(3, 8))
    index(tmp_path, "train_small.txt", range(3, 5))  # lines told twice are one pair
    (tmp_path / "readme.txt").write_text("hello world\n")
    assert rains(tmp_path) == {"test": [1] * 3, "train": [1] * 5}


def test_text_that_is_no_index_is_left_alone(tmp_path: Path) -> None:
    save_pair(tmp_path / "input/1.png", tmp_path / "target/1.png", seed=1)
    (tmp_path / "readme.txt").write_text("hello world\nsee picture.png and more.png\n")
    assert list_folder(tmp_path).layouts == ["folders"]


def test_raincityscapes_names_hold_the_scene(tmp_path: Path) -> None:
    for part, city in (("train", "aachen"), ("val", "lindau")):
        for frame in (1, 2):
            stem = f"{city}_00000{frame}_000019_leftImg8bit"
            for k, (alpha, beta) in enumerate([(0.01, 0.005), (0.02, 0.01), (0.03, 0.015)]):
                name = f"{stem}_rain_alpha_{alpha}_beta_{beta}_dropsize_0.002_pattern_{k + 1}.png"
                clean = tmp_path / "leftImg8bit" / part / city / f"{stem}.png"
                save_pair(tmp_path / "leftImg8bit_rain" / part / city / name, clean, seed=frame + len(city), rain=k)
    assert rains(tmp_path) == {"train": [3, 3], "val": [3, 3]}
    assert list_folder(tmp_path).named


def test_csv_of_pairs_with_halves_and_scenes(tmp_path: Path) -> None:
    save_halves(tmp_path / "x/both.png", seed=1)
    save_pair(tmp_path / "x/r.png", tmp_path / "x/c.png", seed=2)
    save_pair(tmp_path / "y/r2.png", tmp_path / "x/c.png", seed=2, rain=1)
    table = tmp_path / "pairs.csv"
    table.write_text(
        "rainy,clean,scene,part,label\nx/both.png#right,x/both.png#left,a,train,\n"
        "x/r.png,x/c.png,b,test,light\ny/r2.png,x/c.png,b,test,heavy\n"
    )
    assert rains(tmp_path) == rains(table) == {"train": [1], "test": [2]}
    assert group_scenes(list_folder(tmp_path))["test"][0].labels == ("light", "heavy")
    table.write_text("rain,clean\n")
    with pytest.raises(ValueError, match=r"pairs.csv: needs the columns rainy and clean, lacks rainy"):
        list_folder(tmp_path)


def test_a_named_group_of_several_clean_pictures_keeps_each_with_its_own_rain(tmp_path: Path) -> None:
    """A table whose scenes are clips: two frames, the first under two rains, and a copy of it as another file."""
    rows = ["rainy,clean,scene"]
    for rainy, clean, seed in (("a", "a", 1), ("b", "b", 2), ("a2", "a", 1), ("c", "c", 1)):
        save_pair(tmp_path / f"r_{rainy}.png", tmp_path / f"c_{clean}.png", seed=seed, rain=len(rows))
        rows.append(f"r_{rainy}.png,c_{clean}.png,clip")
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    assert rains(tmp_path) == {None: [3, 1]}
    scenes = group_scenes(list_folder(tmp_path))[None]
    assert [(s.name, s.clean.path.stem, s.labels) for s in scenes] == [
        ("clip", "c_a", ("r_a", "r_a2", "r_c")),
        ("clip", "c_b", ("r_b",)),
    ]


def test_unrelated_pictures_under_one_number_are_not_one_scene(tmp_path: Path) -> None:
    for level, first in (("light", 0), ("heavy", 50)):
        for i in range(3):
            home = tmp_path / f"rain_{level}"
            save_pair(home / f"input/{i}.png", home / f"target/{i}.png", seed=first + i)
    assert rains(tmp_path) == {None: [1] * 6}
    assert len({scene.name for scene in group_scenes(list_folder(tmp_path))[None]}) == 3  # no split separates them


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"r1.png", "line 3: says nothing for clean, scene"),
        (b",c1.png,a", "line 3: says nothing for rainy"),
        (b"r1.png,c1.png,", "line 3: says nothing for scene"),
        (b"r,1.png,c1.png,a", "line 3: has more cells than columns"),
        (b"stra\xdfe.png,c1.png,a", "line 3: is not UTF-8 text"),
    ],
)
def test_what_is_no_row_of_a_table_is_told_with_its_line(tmp_path: Path, row: bytes, reason: str) -> None:
    (tmp_path / "pairs.csv").write_bytes(b"rainy,clean,scene\nr0.png,c0.png,a\n" + row + b"\n")
    with pytest.raises(ValueError, match=f"pairs.csv, {reason}"):
        list_folder(tmp_path)


def test_folder_of_photographs(tmp_path: Path) -> None:
    for i in range(5):
        save(tmp_path / "holiday" / f"IMG_{i}.jpg", background(i))
        save(tmp_path / "masks" / f"IMG_{i}.png", background(i))
        (tmp_path / "holiday" / f"._IMG_{i}.jpg").write_bytes(b"\0")  # what macOS leaves in archives
    listing = list_folder(tmp_path)
    assert listing.layouts == ["photos"]
    assert [photo.background for photo in listing.photos] == [f"holiday/IMG_{i}" for i in range(5)]


def test_files_without_a_twin_are_named(tmp_path: Path) -> None:
    for i in range(3):
        save_pair(tmp_path / f"input/{i}.png", tmp_path / f"target/{i}.png", seed=i)
    save(tmp_path / "input/lonely.png", background(9))
    save(tmp_path / "target/dry.png", background(8))
    problems = dict(list_folder(tmp_path).problems)
    assert "has no clean twin in" in problems[str(tmp_path / "input/lonely.png")]
    assert "has no rainy version in" in problems[str(tmp_path / "target/dry.png")]


def test_what_is_called_neither_rainy_nor_clean_is_named(tmp_path: Path) -> None:
    for i in range(3):
        save_pair(tmp_path / f"rain-{i}.png", tmp_path / f"norain-{i}.png", seed=i)
    save(tmp_path / "holiday.png", background(9))
    assert [path for path, _ in list_folder(tmp_path).problems] == [str(tmp_path / "holiday.png")]


def test_a_second_rainy_folder_is_named(tmp_path: Path) -> None:
    for i in range(3):
        save_pair(tmp_path / f"input/{i}.png", tmp_path / f"target/{i}.png", seed=i)
        save_pair(tmp_path / f"rainy/{i}.png", tmp_path / f"target/{i}.png", seed=i, rain=1)
        save(tmp_path / f"labels/{i}.png", background(i))
    listing = list_folder(tmp_path)
    assert len(listing.pairs) == 3
    assert [path for path, _ in listing.problems] == [str(tmp_path / "rainy")]


def test_photographs_beside_pairs_are_told(tmp_path: Path) -> None:
    for i in range(3):
        save_pair(tmp_path / f"input/{i}.png", tmp_path / f"target/{i}.png", seed=i)
    save(tmp_path / "more/holiday.png", background(9))
    with pytest.warns(DataWarning, match=r"1 picture\(s\) beside the pairs are not used, such as .*holiday.png"):
        list_folder(tmp_path)


def test_wrong_requests(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        list_folder(tmp_path / "gone")
    with pytest.raises(ValueError, match="no pictures found"):
        list_folder(tmp_path)
    with pytest.raises(ValueError, match="layout must be one of csv"):
        list_folder(tmp_path, "sideways")


def test_rain_adds_light() -> None:
    clean = background(3)
    assert rainy_half(clean, rain_on(clean, 1)) == "right"
    assert rainy_half(rain_on(clean, 1), clean) == "left"


# -- real samples -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "layout", "pairs"),
    [
        ("Rain100L/train", "folders", 200),
        ("Rain100H/test_sample", "folders", 10),
        ("Rain800_groups/training", "clean-left", 90),
        ("Kodak_sample", "photos", 3),
        ("coco_permissive", "photos", 26),
    ],
)
def test_real_folders_are_recognised(real_data: Path, folder: str, layout: str, pairs: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        listing = list_folder(real_data / folder)
    assert listing.layouts == [layout]
    assert len(listing.pairs) + len(listing.photos) == pairs
    assert listing.problems == []


def test_real_pairs_agree_with_their_table(real_data: Path) -> None:
    """SIRR_val: detection alone, on inputN / norainN, against the published table."""
    table = {(p.rainy.path.name, p.clean.path.name) for p in list_folder(real_data / "SIRR_val").pairs}
    found = {(p.rainy.path.name, p.clean.path.name) for p in list_folder(real_data / "SIRR_val", "folders").pairs}
    assert found == table
    assert len(found) == 11


def test_groups_of_rain800_are_recovered_from_the_files_alone(real_data: Path) -> None:
    stated = json.loads((real_data / "Rain800_groups/groups.json").read_text())["groups"]
    scenes = group_scenes(list_folder(real_data / "Rain800_groups/training"))[None]
    found = {frozenset(Path(p.path).name for p in scene.rainy) for scene in scenes}
    assert found == {frozenset(Path(file).name for file in group["files"]) for group in stated}


def test_repeated_backgrounds_of_rain100l_are_merged(real_data: Path) -> None:
    scenes = group_scenes(list_folder(real_data / "Rain100L/test_sample"))[None]
    assert {frozenset(s.labels) for s in scenes if len(s.rainy) > 1} == {
        frozenset({"norain-12", "norain-91"}),
        frozenset({"norain-9", "norain-58"}),
    }
    assert len(scenes) == 8


@pytest.mark.parametrize("folder", ["Rain100L/train", "Rain100H/test_sample", "SIRR_val", "Rain800_groups/training"])
def test_brighter_picture_is_the_rainy_one_in_real_pairs(real_data: Path, folder: str) -> None:
    votes = [rainy_half(p.clean.read(), p.rainy.read()) for p in list_folder(real_data / folder).pairs[:40]]
    assert np.mean([vote == "right" for vote in votes]) > 0.9
