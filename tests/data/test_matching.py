"""File names: roles, parts, keys and twins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manas_lite.data.matching import file_key, level_of, match_names, natural, part_of, role_of, stem_role


@pytest.mark.parametrize(
    ("folder", "role"),
    [
        ("input", ("rainy", "")),
        ("target", ("clean", "")),
        ("rain", ("rainy", "")),
        ("norain", ("clean", "")),
        ("rainy_image", ("rainy", "")),
        ("ground_truth", ("clean", "")),
        ("in", ("rainy", "")),
        ("gt", ("clean", "")),
        ("input_val", ("rainy", "val")),
        ("label_val", ("clean", "val")),
        ("leftImg8bit_rain", ("rainy", "")),
        ("leftImg8bit", ("clean", "")),
        ("Rain100L", None),
        ("inside", None),
        ("rainbow", None),
        ("training", None),
    ],
)
def test_folder_roles(folder: str, role: object) -> None:
    assert role_of(folder) == role


def test_stem_roles() -> None:
    assert [stem_role(s) for s in ("norain-001", "rain-1", "1_clean", "rain12", "beach", "no_rain_7")] == [
        "clean",
        "rainy",
        "clean",
        "rainy",
        None,
        "clean",
    ]


@pytest.mark.parametrize(
    ("folders", "part"),
    [
        (["train"], "train"),
        (["DID-MDN-training", "Rain_Heavy", "train2018new"], "train"),
        (["DID-MDN-test"], "test"),
        (["real_test_1000"], "test"),
        (["leftImg8bit", "val", "aachen"], "val"),
        (["contest", "pictures"], None),
        ([], None),
    ],
)
def test_parts(folders: list[str], part: str | None) -> None:
    assert part_of(folders) == part


def test_levels() -> None:
    assert [level_of(f) for f in ("Rain_Heavy", "light", "Rain_Medium", "heavyweight")] == [
        "heavy",
        "light",
        "medium",
        None,
    ]


@pytest.mark.parametrize(
    ("rainy", "clean", "twins"),
    [
        (["a/1.png"], ["a/1.jpg", "b/1.jpg"], {"a/1.png": "a/1.jpg"}),
        (["rain-001.png"], ["norain-001.png", "norain-010.png"], {"rain-001.png": "norain-001.png"}),
        (["X2/norain-3x2.png"], ["norain-3.png", "norain-32.png"], {"X2/norain-3x2.png": "norain-3.png"}),
        (["input7.png"], ["norain7.png"], {"input7.png": "norain7.png"}),
        (["1_14.jpg", "11_4.jpg"], ["1.jpg", "11.jpg"], {"1_14.jpg": "1.jpg", "11_4.jpg": "11.jpg"}),
        (["im_0001_s80_a04.png"], ["im_0001.png", "im_0080.png"], {"im_0001_s80_a04.png": "im_0001.png"}),
        (["city_0_1_leftImg8bit_rain_alpha_0.01.png"], ["city_0_1_leftImg8bit.png"], None),
        (["5.png"], ["05.png", "005.png"], {}),  # two candidates decide nothing
        (["lone.png"], ["other.png"], {}),
    ],
)
def test_twins(rainy: list[str], clean: list[str], twins: dict[str, str] | None) -> None:
    assert match_names(rainy, clean) == (twins if twins is not None else dict(zip(rainy, clean, strict=True)))


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1), st.integers(1, 20))
def test_numbered_pairs_always_find_their_own(numbers: list[int], rains: int) -> None:
    clean = [f"{n:04d}.png" for n in numbers]
    rainy = [f"{n}_{k}.jpg" for n in numbers for k in range(1, rains + 1)]
    twins = match_names(rainy, clean)
    assert len(twins) == len(rainy)
    assert all(int(r.split("_")[0]) == int(c.split(".")[0]) for r, c in twins.items())


def test_keys_keep_what_tells_files_apart() -> None:
    assert file_key("rain") == "rain"
    assert file_key("rainbow") == "rainbow"
    assert file_key("雨-3") == "雨-3"


def test_natural_order() -> None:
    assert sorted(["10", "9", "a2", "a10", "1"], key=natural) == ["1", "9", "10", "a2", "a10"]
