"""Every bundled photograph has a licence, a part and the bytes its index says."""

import csv
import hashlib
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import manas_lite

PHOTOS = Path(manas_lite.__file__).parent / "assets" / "photos"
LICENCES = {
    "CC BY 2.0": "http://creativecommons.org/licenses/by/2.0/",
    "CC BY-SA 2.0": "http://creativecommons.org/licenses/by-sa/2.0/",
    "CC0 1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "No known copyright restrictions": "http://flickr.com/commons/usage/",
    "Public domain": None,
    "Public domain (no known copyright restrictions)": None,
}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with open(PHOTOS / "index.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_index_and_the_folder_list_the_same_files(rows):
    names = [row["file"] for row in rows]
    assert len(set(names)) == len(names)
    assert set(names) == {p.name for p in PHOTOS.iterdir()} - {"index.csv", "LICENCES.md"}


def test_every_file_has_a_licence_an_author_and_a_source(rows):
    for row in rows:
        assert row["licence"] in LICENCES, row["file"]
        assert row["licence_url"].startswith("http"), row["file"]
        assert LICENCES[row["licence"]] in (None, row["licence_url"]), row["file"]
        assert row["author"], row["file"]
        assert row["source_url"].startswith("http"), row["file"]
        assert row["changes"], row["file"]
        assert row["description"], row["file"]


def test_flickr_authors_are_pointed_to_by_the_number_of_their_own_photograph(rows):
    for row in rows:
        if row["file"].startswith("coco_"):
            number = row["source_url"].rsplit("/", 1)[1].split("_")[0]
            assert row["author"].endswith(f"photo.gne?id={number}"), row["file"]


def test_every_file_is_a_readable_photograph_under_one_megabyte(rows):
    for row in rows:
        path = PHOTOS / row["file"]
        assert path.stat().st_size < 1_000_000, row["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"], row["file"]
        with Image.open(path) as picture:
            assert picture.format == "JPEG", row["file"]
            pixels = np.asarray(picture.convert("RGB"))
        assert 300 <= min(pixels.shape[:2]) <= max(pixels.shape[:2]) <= 640, row["file"]
        assert pixels.std() > 20, row["file"]  # a picture, not a blank


def test_unchanged_coco_files_agree_with_the_source(rows, real_data):
    for row in rows:
        if row["file"].startswith("coco_") and row["changes"] == "none":
            source = real_data / "coco_permissive" / "images" / row["file"].removeprefix("coco_")
            assert hashlib.sha256(source.read_bytes()).hexdigest() == row["sha256"], row["file"]


def test_licences_of_the_coco_files_agree_with_the_source(rows, real_data):
    with open(real_data / "coco_permissive" / "licences.csv", newline="", encoding="utf-8") as file:
        source = {row["file"]: row for row in csv.DictReader(file)}
    ours = [row for row in rows if row["file"].startswith("coco_")]
    assert len(ours) == len(source)
    for row in ours:
        theirs = source[row["file"].removeprefix("coco_")]
        assert (row["licence_url"], row["source_url"]) == (theirs["licence_url"], theirs["flickr_url"])


def test_the_parts_are_fixed_and_share_no_picture(rows):
    assert Counter(row["part"] for row in rows) == {"train": 20, "val": 4, "test": 6}
    assert len({row["sha256"] for row in rows}) == len(rows)
    thumbnails = {}
    for row in rows:  # 16 x 16 grey thumbnails, normalised: equal content correlates near 1 whatever the coding
        with Image.open(PHOTOS / row["file"]) as picture:
            small = np.asarray(picture.convert("L").resize((16, 16), Image.Resampling.BOX), np.float64)
        thumbnails[row["file"]] = (small - small.mean()) / small.std()
    likeness = {pair: np.mean(thumbnails[pair[0]] * thumbnails[pair[1]]) for pair in combinations(thumbnails, 2)}
    assert max(likeness.values()) < 0.9, max(likeness, key=likeness.get)
