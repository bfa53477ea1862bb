"""The layouts of published sets that no general layout reads: imitations of their trees, made here."""

import re
import warnings
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import background, rain_on, save

from manas_lite.data import open_split
from manas_lite.data.layouts import list_patterns
from manas_lite.data.listing import DataWarning
from manas_lite.data.registry import data_set, data_sets, list_set

Trees = dict[str, list[tuple[str, str, str | None, str]]]


def imitations() -> Trees:
    """Return, for each set, its (rainy file, clean file, part, label) as its publisher lays them out."""
    trees: Trees = {}
    gt_rain = trees["gt-rain"] = []
    for part, scenes in {
        "train": ("Gurutto_0-0", "M1135_0-1", "Oinari_1-1"),
        "val": ("W_0-2",),
        "test": ("T_0-0",),
    }.items():
        for scene in scenes:
            home = f"GT-RAIN_{part}/GT-RAIN_{part}/{scene}/{scene}-Webcam"
            gt_rain += [(f"{home}-R-{n:03}.png", f"{home}-C-000.png", part, f"{n:03}") for n in range(4)]
    home = "GT-RAIN_val/Gurutto_1-2/Gurutto_1-2"  # each rainy frame has a clean one of its own
    gt_rain += [(f"{home}-R-{n:03}.png", f"{home}-C-{n:03}.png", "val", f"{n:03}") for n in range(3)]
    trees["raw-rain"] = [
        (f"train/train_{s}/rain/{n}.png", f"train/train_{s}/gt/{n}.png", "train", str(n))
        for s in (1, 27)
        for n in (0, 1)
    ]
    trees["hri"] = [
        (f"rainy/{v}/{rain}/rainy_image/{n}.png", f"clean/{v}/background/{n}.jpg", None, rain)
        for v in ("lane/front", "citystreet/far")
        for rain in ("10mm/wind1", "100mm/wind2")
        for n in ("frame_0100", "frame_0200")
    ]
    trees["rainycoco"] = [
        (f"RainyCOCO/train/{level}/{n:012}.jpg", f"train2017/{n:012}.jpg", "train", level)
        for level in ("weak", "heavy", "torrential")
        for n in (9, 25, 30)
    ]
    trees["rain13k-hub"] = [
        (f"train/input/part_{n % 2}/{n}.jpg", f"train/target/part_{n % 2}/{n}.jpg", "train", str(n)) for n in range(5)
    ] + [(f"test/{s}/input/{n}.png", f"test/{s}/target/{n}.png", "test", str(n)) for s in ("A", "B") for n in (1, 2)]
    trees["ddn-data"] = [
        (f"{part}ing/rainy_image/{shard}/{n}_{j}.jpg", f"{part}ing/ground_truth/{n}.jpg", part, str(j))
        for part, n in (("train", 901), ("train", 12), ("test", 3))
        for j, shard in ((1, "part_0"), (14, "part_1"))
    ]
    trees["realrain-1k"] = [
        (f"RealRain-1k-{d}/{part}/input/{n}.png", f"RealRain-1k-{d}/{part}/target/{n}.png", part, str(n))
        for d in "HL"
        for part, n in (("train", 4), ("train", 7), ("val", 1), ("test", 12))
    ]
    rainds = trees["rainds"] = []
    for part, n, pie in (("train", 1, ""), ("train", 1, "pie-"), ("test", 2, "")):
        home = f"RainDS/RainDS_syn/{part}"
        for rain, before in (("raindrop", "rd-"), ("rainstreak", "rain-"), ("rainstreak_raindrop", "rd-rain-")):
            rainds.append((f"{home}/{rain}/{pie}{before}{n}.png", f"{home}/gt/{pie}norain-{n}.png", part, rain))
            real = f"RainDS/RainDS_real/{part}_set"
            rainds += [(f"{real}/{rain}/{n + 5}.png", f"{real}/gt/{n + 5}.png", part, rain)] * (not pie)
    return trees


BESIDE = {
    "hri": ["clean/lane/front/depth/frame_0100.png", "rainy/lane/front/10mm/wind1/rain_layer/frame_0100.png"],
    "rainds": ["RainDS/RainDS_real/test_set/rainstreak/IMG_7435.png"],
    "rainycoco": ["train2017/000000000077.jpg"],
}
"""Pictures that the publisher's tree holds too, and that make no pair."""


def lay_out(root: Path, name: str) -> Trees:
    pairs = imitations()[name]
    folder = root / data_set(name).folder
    for rainy, clean, *_ in pairs:
        seed = sum(map(ord, clean))
        if not (folder / clean).exists():
            save(folder / clean, background(seed))
        save(folder / rainy, rain_on(background(seed), sum(map(ord, rainy))))
    for number, file in enumerate(BESIDE.get(name, [])):
        save(folder / file, background(900 + number))
    return pairs


@pytest.mark.parametrize("name", sorted(imitations()))
def test_an_imitation_is_read_as_its_publisher_means_it(name: str, tmp_path: Path) -> None:
    expected = lay_out(tmp_path, name)
    chosen = data_set(name)
    listing = list_set(chosen, tmp_path)
    folder = tmp_path / chosen.folder
    assert listing.problems == []
    found = [
        (pair.rainy.path.relative_to(folder).as_posix(), pair.clean.path.relative_to(folder).as_posix(), pair.part)
        for pair in listing.pairs
    ]
    assert sorted(found) == sorted((rainy, clean, part) for rainy, clean, part, _ in expected)
    assert {pair.rainy.path.relative_to(folder).as_posix(): pair.label for pair in listing.pairs} == {
        rainy: label for rainy, _, _, label in expected
    }


@pytest.mark.parametrize("name", ["gt-rain", "ddn-data", "rainds", "hri", "rainycoco"])
def test_rains_of_one_background_are_one_scene(name: str, tmp_path: Path) -> None:
    expected = lay_out(tmp_path, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # an imitation has fewer pairs than the set
        split = open_split(name, root=tmp_path)
    scenes = split.train + split.val + split.test
    per_clean = Counter(clean for _, clean, *_ in expected)
    assert sorted(len(scene.rainy) for scene in scenes) == sorted(per_clean.values())


def test_every_row_with_patterns_has_an_imitation_and_patterns_that_compile() -> None:
    rows = {name: chosen for name, chosen in data_sets().items() if chosen.rainy or chosen.clean}
    assert set(rows) == set(imitations())
    for chosen in rows.values():
        shared = set(re.compile(chosen.rainy).groupindex) & set(re.compile(chosen.clean).groupindex)
        assert shared == set(re.compile(chosen.clean).groupindex)


def test_a_rainy_picture_without_its_twin_is_a_problem(tmp_path: Path) -> None:
    lay_out(tmp_path, "ddn-data")
    (tmp_path / "ddn-data" / "testing" / "ground_truth" / "3.jpg").unlink()
    listing = list_set(data_set("ddn-data"), tmp_path)
    assert sorted(Path(path).name for path, _ in listing.problems) == ["3_1.jpg", "3_14.jpg"]
    assert {reason for _, reason in listing.problems} == {"has no clean twin"}
    assert len(listing.pairs) == 4


def test_a_tree_of_something_else_says_which_names_are_expected(tmp_path: Path) -> None:
    save(tmp_path / "ddn-data" / "holiday" / "1.png", background(1))
    with pytest.raises(ValueError, match=r"no picture is named as those of this set .*rainy_image"):
        list_set(data_set("ddn-data"), tmp_path)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cleans=st.dictionaries(st.sampled_from("abcd"), st.sets(st.integers(0, 3), min_size=1), min_size=1),
    rainy=st.sets(st.tuples(st.sampled_from("abcde"), st.integers(0, 3))),
)
def test_frames_pair_with_their_own_frame_or_with_the_only_one(
    tmp_path_factory: pytest.TempPathFactory, cleans: dict[str, set[int]], rainy: set[tuple[str, int]]
) -> None:
    """Against the rule as a sentence: the clean frame of the same number, else the scene's only clean frame."""
    root = tmp_path_factory.mktemp("frames")
    for scene, frames in cleans.items():
        for frame in frames:
            save(root / scene / f"C-{frame}.png", background(ord(scene)))
    for scene, frame in rainy:
        save(root / scene / f"R-{frame}.png", rain_on(background(ord(scene)), frame))
    expected, lonely = {}, set()
    for scene, frame in rainy:
        here = cleans.get(scene, set())
        if frame in here:
            expected[scene, frame] = frame
        elif len(here) == 1:
            (expected[scene, frame],) = here
        else:
            lonely.add(f"{scene}/R-{frame}.png")
    scene_and_frame = r"(?P<scene>\w+)/{}-(?P<frame>\d)\.png$"
    if not rainy:
        with pytest.raises(ValueError, match="no picture is named"):
            list_patterns(root, scene_and_frame.format("R"), scene_and_frame.format("C"))
        return
    listing = list_patterns(root, scene_and_frame.format("R"), scene_and_frame.format("C"))
    number = {
        (pair.background, int(pair.label)): int(pair.clean.path.stem.removeprefix("C-")) for pair in listing.pairs
    }
    assert number == expected
    assert {Path(path).relative_to(root).as_posix() for path, _ in listing.problems} == lonely
