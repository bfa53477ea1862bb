"""What a folder seems to hold, and does not: rain for photographs, exchanged files, parts, copies, odd names."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import background, rain_on, save, save_halves, save_pair

from manas_lite.data import open_split
from manas_lite.data.checking import check
from manas_lite.data.layouts import list_folder
from manas_lite.data.listing import DataWarning, Listing
from manas_lite.data.matching import part_of
from manas_lite.data.splits import Split


def opened(folder: Path, layout: str | None = None) -> tuple[Split | None, str]:
    """The split of a folder, None where it is refused, and all that is told."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            split = open_split(folder, layout=layout)
        except ValueError as error:
            return None, "\n".join([*(str(w.message) for w in caught), str(error)])
    return split, "\n".join(str(w.message) for w in caught)


def listed(folder: Path, layout: str | None = None) -> Listing:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list_folder(folder, layout)


def sizes(split: Split | None) -> list[int]:
    assert split
    return [len(split.train), len(split.val), len(split.test)]


def fine(seed: int) -> np.ndarray:
    """A picture with structure at every scale, as photographs have."""
    rng = np.random.default_rng(seed)
    scales = [rng.integers(0, 150, (h, w, 3), dtype=np.uint8) for h, w in ((4, 6), (12, 16), (30, 40))]
    layers = [Image.fromarray(scale).resize((128, 96), Image.Resampling.BICUBIC) for scale in scales]
    return np.mean([np.asarray(layer, np.float32) for layer in layers], axis=0).astype(np.uint8)


# -- rain for photographs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["rain/{}.png", "input/x/{}.png", "rain-{:03d}.png", "{}_rainy.png", "Rain_Heavy/{}.png"]
)
def test_rainy_pictures_without_clean_ones_are_no_photographs(tmp_path: Path, name: str) -> None:
    for i in range(12):
        save(tmp_path / name.format(i), rain_on(background(i), i))
    split, told = opened(tmp_path)
    assert split is None
    assert "12 picture(s) are named as rainy ones" in told
    assert "layout='photos'" in told
    assert sum(sizes(opened(tmp_path, "photos")[0])) == 12
    if "/" in name:
        folder = tmp_path / Path(name).parts[0]
        assert opened(folder)[0] is None


def test_a_side_without_its_twin_names_both_sides(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / f"rain/{i}.png", rain_on(background(i), i))
        save(tmp_path / f"goundtruth/{i + 20}.png", background(i + 20))
    split, told = opened(tmp_path)
    assert split is None
    assert f"{tmp_path}/rain/0.png" in told
    assert f"{tmp_path}/goundtruth/20.png" in told


def test_a_photograph_may_be_called_as_it_likes(tmp_path: Path) -> None:
    for i, name in enumerate(["in the park", "rain in Rome", *"abcdefghij"]):
        save(tmp_path / f"no rain/{name}.png", background(i))
    split, told = opened(tmp_path)
    assert (sum(sizes(split)), told) == (12, "")


@pytest.mark.parametrize("kind", ["above", "three", "three above"])
def test_two_pictures_in_a_file_are_no_photograph(tmp_path: Path, kind: str) -> None:
    for i in range(12):
        clean = fine(i)
        rainy = rain_on(clean, i)
        mask = np.where(fine(i + 50) > 75, 255, 0).astype(np.uint8)
        parts = [rainy, clean] if kind == "above" else [rainy, clean, mask]
        save(tmp_path / f"{i}.png", np.concatenate(parts, axis=1 if kind == "three" else 0))
    split, told = opened(tmp_path)
    assert split is None
    assert f"{tmp_path}/0.png holds one scene twice" in told
    assert "layout='photos'" in told
    assert sum(sizes(opened(tmp_path, "photos")[0])) == 12


def test_a_few_pairs_in_a_file_among_photographs_are_named(tmp_path: Path) -> None:
    for i in range(12):
        both = np.concatenate([rain_on(fine(i), i), fine(i)], axis=1)
        save(tmp_path / f"{i}.png", both if i in (2, 5, 9) else fine(i))
    listing = listed(tmp_path)
    assert {Path(path).name for path, _ in listing.problems} == {"2.png", "5.png", "9.png"}
    assert len(listing.photos) == 9
    assert opened(tmp_path)[0] is None


def test_one_such_file_among_many_is_left_out_and_named(tmp_path: Path) -> None:
    for i in range(25):
        save(tmp_path / f"{i}.png", np.concatenate([fine(7), rain_on(fine(7), 7)]) if i == 7 else fine(i))
    split, told = opened(tmp_path)
    assert sum(sizes(split)) == 24
    assert "1 picture(s) seem to hold one scene twice" in told
    assert f"and are left out: {tmp_path}/7.png" in told
    assert sum(sizes(opened(tmp_path, "photos")[0])) == 25


# -- rain and clean exchanged -------------------------------------------------------------------------------------


def test_each_exchanged_pair_is_named(tmp_path: Path) -> None:
    for i in range(12):
        sides = ("gt", "rain") if i in (2, 5, 8) else ("rain", "gt")
        save_pair(tmp_path / sides[0] / f"{i}.png", tmp_path / sides[1] / f"{i}.png", seed=i)
    split, told = opened(tmp_path)
    assert sum(sizes(split)) == 12
    for text in (told, str(check(tmp_path))):
        assert "3 of 12 pairs show rain where they should be clean" in text
        assert [i for i in range(12) if f"/rain/{i}.png" in text] == [2, 5, 8]


def test_each_part_is_asked_for_itself(tmp_path: Path) -> None:
    for i in range(12):
        part, sides = ("train", ("rain", "gt")) if i < 9 else ("test", ("gt", "rain"))
        save_pair(tmp_path / part / sides[0] / f"{i}.png", tmp_path / part / sides[1] / f"{i}.png", seed=i)
    _, told = opened(tmp_path)
    assert "3 of 3 test pairs show rain where they should be clean" in told
    assert "/test/rain/11.png" in told
    assert "/train/rain/" not in told


def test_files_of_the_other_order_are_named(tmp_path: Path) -> None:
    for i in range(12):
        save_halves(tmp_path / f"{i}.png", seed=i, order="rain-left" if i in (3, 7) else "clean-left")
    _, told = opened(tmp_path)
    assert "2 of 12 pairs show rain where they should be clean" in told
    assert "/3.png#right" in told
    assert "/7.png#right" in told


def test_two_views_of_one_camera_that_are_exchanged_are_named(tmp_path: Path) -> None:
    for i in range(12):
        save_pair(tmp_path / f"rain/{i}.png", tmp_path / f"gt/{i}.png", seed=i)
    wide = np.asarray(Image.fromarray(background(40)).resize((144, 108), Image.Resampling.BICUBIC))
    for i, other in ((20, 21), (21, 20)):
        view = wide[3 * (i - 20) :, 5 * (i - 20) :][:96, :128]
        save(tmp_path / f"rain/{i}.png", rain_on(view, i))
        save(tmp_path / f"gt/{other}.png", view)
    split, told = opened(tmp_path)
    assert sum(sizes(split)) == 14
    assert "2 rainy pictures look more like one another's clean pictures than like their own" in told
    assert f"{tmp_path}/rain/20.png like {tmp_path}/gt/21.png" in told
    for i in (20, 21):
        os.rename(tmp_path / f"gt/{i}.png", tmp_path / f"gt/{41 - i}.tmp")
    for i in (20, 21):
        os.rename(tmp_path / f"gt/{i}.tmp", tmp_path / f"gt/{i}.png")
    assert "exchanged" not in opened(tmp_path)[1]


# -- parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("eval", "test"),
        ("holdout", "test"),
        ("dev", "val"),
        ("valid", "val"),
        ("TrainSet", "train"),
        ("testA", "test"),
        ("val2017", "val"),
        ("Rain_training_data", "train"),
        ("testset", "test"),
        ("Valencia", None),
        ("Trainingsdaten", "train"),
        ("testfiles", "test"),
        ("evaluate me", None),
        ("contest", None),
    ],
)
def test_parts_are_whole_words(name: str, part: str | None) -> None:
    assert part_of([name]) == part


@pytest.mark.parametrize(("name", "expected"), [("eval", [7, 1, 4]), ("dev", [7, 4, 1])])
@pytest.mark.parametrize("kind", ["folder", "index", "table"])
def test_synonyms_of_parts(tmp_path: Path, name: str, expected: list[int], kind: str) -> None:
    lines: dict[str, list[str]] = {"train": [], name: []}
    for i in range(12):
        part = "train" if i < 8 else name
        home = part if kind == "folder" else "pictures"
        save_pair(tmp_path / home / f"rain/{i}.png", tmp_path / home / f"gt/{i}.png", seed=i)
        lines[part].append(f"{home}/rain/{i}.png,{home}/gt/{i}.png")
    if kind == "index":
        for part, rows in lines.items():
            (tmp_path / f"{part}.txt").write_text("\n".join(rows))
    if kind == "table":
        rows = [f"{row},{part}" for part, rows in lines.items() for row in rows]
        (tmp_path / "pairs.csv").write_text("\n".join(["rainy,clean,part", *rows]))
    split, told = opened(tmp_path)
    assert (sizes(split), told) == (expected, "")


def test_an_unknown_part_of_a_table_is_refused_with_its_line(tmp_path: Path) -> None:
    save_pair(tmp_path / "a.png", tmp_path / "b.png", seed=0)
    (tmp_path / "pairs.csv").write_text("rainy,clean,part\na.png,b.png,\na.png,b.png,fold 3\n")
    with pytest.raises(ValueError, match="line 3: the part 'fold 3' is not known; write train, val or test"):
        list_folder(tmp_path)


def test_a_folder_of_no_known_part_beside_others_is_told(tmp_path: Path) -> None:
    for i in range(12):
        home = tmp_path / ("train" if i < 8 else "probe")
        save_pair(home / f"rain/{i}.png", home / f"gt/{i}.png", seed=i)
    _, told = opened(tmp_path)
    assert f"4 of 12 name no known part (train, val, test and their like), such as {tmp_path}/probe/rain/8.png" in told


# -- copies, names, encodings -------------------------------------------------------------------------------------


def test_exact_copies_are_no_second_rain(tmp_path: Path) -> None:
    for i in range(12):
        save_pair(tmp_path / f"rain/{i}.png", tmp_path / f"gt/{i}.png", seed=i)
    for number, copy in ((3, "3 - Copy.png"), (4, "4 (1).png"), (5, "backup/5.png")):
        save(tmp_path / "rain" / copy, rain_on(background(number), 1000 * number))
    save(tmp_path / "rain/6_2.png", rain_on(background(6), 1))  # another rain is one
    split, told = opened(tmp_path)
    assert split
    assert [len(s.rainy) for s in split.train + split.val + split.test].count(2) == 1
    assert "3 rainy picture(s) are exact copies" in told
    for number, copy in ((3, "3 - Copy.png"), (4, "4 (1).png"), (5, "backup/5.png")):
        assert f"{tmp_path}/rain/{copy} of {tmp_path}/rain/{number}.png" in told
    assert "exact copies" in str(check(tmp_path))


def test_a_pair_counts_once_however_its_paths_are_spelled(tmp_path: Path) -> None:
    rows = []
    for i in range(12):
        save_pair(tmp_path / f"a/{i}.png", tmp_path / f"b/{i}.png", seed=i)
        rows.append(f"a/{i}.png,b/{i}.png")
    rows += ["b/../a/3.png,b/3.png", f"a/4.png,{tmp_path}/b/4.png"]
    (tmp_path / "pairs.csv").write_text("\n".join(["rainy,clean", *rows]))
    listing = listed(tmp_path)
    assert len(listing.pairs) == 12
    assert ["line 14 repeats" in listing.notes[0], "line 15 repeats" in listing.notes[1]] == [True, True]
    with open(tmp_path / "pairs.csv", "a") as file:
        file.write("\nb/../b/5.png,a/../a/5.png")
    assert "as clean" in listed(tmp_path).problems[0][1]


def test_pictures_without_an_ending_are_told_beside_a_text(tmp_path: Path) -> None:
    for i in range(12):
        save_pair(tmp_path / f"rain/{i}.png", tmp_path / f"gt/{i}.png", seed=i)
    (tmp_path / "LICENSE").write_text("no picture")
    for i in range(5):
        Image.fromarray(background(i)).save(tmp_path / f"rain/img{i}", "JPEG")
    _, told = opened(tmp_path)
    assert f"5 without an ending, such as {tmp_path}/rain/img0" in told


def test_only_hidden_pictures_are_told(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"#{i}.png", background(i))
    with pytest.raises(ValueError, match=r"no pictures found .*3 hidden, such as .*#0.png"):
        list_folder(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
@pytest.mark.parametrize("pairs", [True, False])
def test_names_that_are_no_text_are_named_and_left_out(tmp_path: Path, pairs: bool) -> None:
    for i in range(13):
        save(tmp_path / f"gt/{i}.png", background(i))
        if pairs:
            save(tmp_path / f"rain/{i}.png", rain_on(background(i), i))
    for side in ("gt", "rain") if pairs else ("gt",):
        os.rename(tmp_path / side / "4.png", os.fsencode(tmp_path / side) + b"/\xff4.png")
    split, told = opened(tmp_path)
    assert split is None
    assert "4.png has a name that is no UTF-8 text" in told
    with pytest.warns(DataWarning, match="no UTF-8 text"):
        split = open_split(tmp_path, strict=False)
    assert sum(sizes(split)) == 12
    assert split.sha256


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_a_folder_whose_name_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xffset"))
    for i in range(12):
        save(folder / f"{i}.png", background(i))
    with pytest.raises(ValueError, match="set: the folder has a name that is no UTF-8 text"):
        open_split(folder)


def test_two_clean_pictures_of_one_rainy_are_refused(tmp_path: Path) -> None:
    for i in range(12):
        save_pair(tmp_path / f"input/{i}.png", tmp_path / f"output/{i}.png", seed=i)
        save(
            tmp_path / f"ours/{i}.png", (0.9 * background(i) + 0.1 * rain_on(background(i), 1000 * i)).astype(np.uint8)
        )
    split, told = opened(tmp_path)
    assert split is None
    assert f"{tmp_path}/ours/0.png and {tmp_path}/output/0.png both show the scene of {tmp_path}/input/0.png" in told
    assert "layout='input:ours' or 'input:output'" in told
    assert sum(sizes(opened(tmp_path, "input:output")[0])) == 12


@pytest.mark.parametrize(
    ("file", "text"), [("train.txt", "a/{0}.png b/{1}.png\n"), ("pairs.csv", "a/{0}.png,b/{1}.png\n")]
)
def test_tables_of_windows_editors(tmp_path: Path, file: str, text: str) -> None:
    for i in range(6):
        save_pair(tmp_path / f"a/{i}.png", tmp_path / f"b/{(i + 1) % 6}.png", seed=i)
    rows = "".join(text.format(i, (i + 1) % 6) for i in range(6))
    (tmp_path / file).write_text(("rainy,clean\n" if file == "pairs.csv" else "") + rows, encoding="utf-16")
    listing = listed(tmp_path)
    assert (len(listing.pairs), listing.problems) == (6, [])
    assert not any("not read" in remark for remark in listing.remarks)
