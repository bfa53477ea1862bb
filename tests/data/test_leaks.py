"""The perceptual hash and the leak report."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from samples import background, rain_on, save, save_pair

from manas_lite.data import LeakError, Picture, Scene, sealed
from manas_lite.data.grouping import without_leaks
from manas_lite.data.leaks import find_leaks
from manas_lite.data.similarity import SAME, clusters, signature, signatures, similar_pairs


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 95), st.tuples(*[st.integers(0, 6)] * 4))
def test_same_background_survives_jpeg_and_a_crop(seed: int, quality: int, cut: tuple[int, int, int, int]) -> None:
    whole = background(seed, 300, 400)
    top, bottom, left, right = cut
    cropped = whole[top : 300 - bottom, left : 400 - right]
    assert float(signature(whole) @ signature(jpeg(cropped, quality))) > SAME
    assert float(signature(whole) @ signature(jpeg(rain_on(whole, seed), quality))) > SAME


def test_other_backgrounds_are_told_apart() -> None:
    hashes = np.stack([signature(background(seed)) for seed in range(120)])
    scores = (hashes @ hashes.T)[~np.eye(120, dtype=bool)]
    assert scores.max() < SAME


def test_flat_pictures_are_nobodys_twins() -> None:
    flat = [signature(np.full((20, 30, 3), value, np.uint8)) for value in (0, 128, 255)]
    assert similar_pairs(np.stack(flat), np.stack(flat)) == []


def test_pairs_come_best_first_and_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manas_lite.data.similarity._BLOCK", 3)
    hashes = np.stack([signature(background(seed)) for seed in range(8)])
    assert sorted((i, j) for i, j, _ in similar_pairs(hashes, hashes[::-1])) == [(i, 7 - i) for i in range(8)]
    scores = [score for *_, score in similar_pairs(hashes, hashes, threshold=-1)]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 64


@given(st.integers(1, 30), st.data())
def test_clusters_are_connected_components(count: int, data: st.DataObject) -> None:
    links = data.draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=40))
    groups = clusters(count, links)
    assert sorted(i for group in groups for i in group) == list(range(count))
    label = np.arange(count)  # the oracle: spread the smallest label until nothing changes
    for _ in range(count):
        for i, j in links:
            label[i] = label[j] = min(label[i], label[j])
    home = {i: k for k, group in enumerate(groups) for i in group}
    assert all((home[i] == home[j]) == (label[i] == label[j]) for i in range(count) for j in range(count))


def test_report_counts_pictures_and_backgrounds(tmp_path: Path) -> None:
    for i in range(6):
        save_pair(tmp_path / f"a/input/{i}.png", tmp_path / f"a/target/{i}.png", seed=i)
    for name, seed in {"x": 4, "y": 4, "z": 5, "other": 30}.items():
        save_pair(tmp_path / f"b/input/{name}.png", tmp_path / f"b/target/{name}.png", seed=seed, rain=3)
    report = find_leaks(tmp_path / "a", tmp_path / "b")
    assert (report.train_pictures, report.test_pictures) == (6, 4)
    assert (report.leaking_backgrounds, report.test_backgrounds) == (2, 3)
    found = {(test.path.stem, train.path.stem) for test, train, _ in report.matches}
    assert found == {("x", "4"), ("y", "4"), ("z", "5")}
    assert "3 of 4 test pictures (2 of 3 backgrounds)" in str(report)


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.01, 65.0, float("nan")])
def test_threshold_that_is_no_similarity_is_refused(tmp_path: Path, threshold: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        find_leaks(tmp_path, tmp_path, threshold)


def test_training_scenes_that_leak_are_left_out(tmp_path: Path) -> None:
    def scene(name: str, seed: int) -> Scene:
        clean = Picture(save(tmp_path / f"{name}.png", background(seed)))
        return Scene(name, clean, (clean,), ("r",))

    train = [scene(f"t{i}", i) for i in range(5)]
    kept, left_out = without_leaks(train, [scene("v", 1)], [scene("u", 3), scene("w", 40)])
    assert [s.name for s in kept] == ["t0", "t2", "t4"]
    assert left_out == 2


def test_hash_of_a_sealed_picture_is_not_to_be_had(tmp_path: Path) -> None:
    picture = Picture(save(tmp_path / "a.png", background(1)))
    signatures([picture])  # kept from before the seal
    with sealed([Scene("s", picture, (picture,), ("r",))]), pytest.raises(LeakError):
        signatures([picture])


# -- real samples -------------------------------------------------------------------------------------------------


def test_rain100l_and_rain100h_show_the_same_test_pictures(real_data: Path) -> None:
    report = find_leaks(real_data / "Rain100L/test_sample", real_data / "Rain100H/test_sample")
    assert (len(report.matches), report.leaking_backgrounds) == (10, 8)
    assert all(test.path.name == train.path.name or score > 0.99 for test, train, score in report.matches)


def test_all_of_sirr_val_is_in_rain100l(real_data: Path) -> None:
    report = find_leaks(real_data / "Rain100L/train", real_data / "SIRR_val")
    assert len(report.matches) == report.leaking_backgrounds == 11


@pytest.mark.parametrize("other", ["Kodak_sample", "Rain800_groups", "coco_permissive", "CamVid_sample"])
def test_no_false_alarm_between_sets_that_share_nothing(real_data: Path, other: str) -> None:
    assert find_leaks(real_data / "Rain100L/train", real_data / other).matches == ()


def test_real_pictures_are_found_again_after_jpeg_crop_and_rain(real_data: Path) -> None:
    pairs = [
        (real_data / "Rain100L/train" / kind / f"norain-{i}.png") for kind in ("norain", "rain") for i in range(1, 31)
    ]
    clean, rainy = (np.stack(signatures([Picture(p) for p in half])) for half in (pairs[:30], pairs[30:]))
    damaged = []
    for path in pairs[:30]:
        image = Picture(path).read()
        damaged.append(signature(jpeg(image[5:-8, 3:-7], 40)))
    expected = {(i, i) for i in range(30)}
    assert {(i, j) for i, j, _ in similar_pairs(clean, np.stack(damaged))} == expected
    assert {(i, j) for i, j, _ in similar_pairs(clean, rainy)} == expected


def test_even_heavy_rain_hides_no_background(real_data: Path) -> None:
    home = real_data / "Rain100H/test_sample"
    names = sorted(p.name for p in (home / "rain").iterdir())
    rainy, clean = (signatures([Picture(home / kind / name) for name in names]) for kind in ("rain", "norain"))
    assert np.einsum("ij,ij->i", rainy, clean).min() > SAME
