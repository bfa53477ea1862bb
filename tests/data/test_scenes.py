"""Pictures, scenes, seals and splits."""

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import background, rain_on, save, save_halves, save_pair

from manas_lite.data import (
    LeakError,
    Picture,
    RainyPicture,
    Scene,
    Split,
    one_to_one,
    sealed,
    split_scenes,
    with_extra_rain,
)
from manas_lite.photos.images import ImageError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import mutations


def named(name: str, rains: int = 1) -> Scene:
    """A scene whose files need not exist."""
    rainy = tuple(Picture(Path(f"/nowhere/{name}-{k}.png")) for k in range(rains))
    return Scene(name, Picture(Path(f"/nowhere/{name}.png")), rainy, tuple(str(k) for k in range(rains)))


def on_disk(folder: Path, seed: int, rains: int = 2) -> Scene:
    rainy = tuple(folder / f"{seed}_{k}.png" for k in range(rains))
    for k, path in enumerate(rainy):
        save_pair(path, folder / f"{seed}.png", seed, rain=k)
    return Scene(f"s{seed}", Picture(folder / f"{seed}.png"), tuple(map(Picture, rainy)), tuple("ab"[:rains]))


# -- pictures and scenes ------------------------------------------------------------------------------------------


def test_scene_reads_its_versions_in_order(tmp_path: Path) -> None:
    rainy, clean = on_disk(tmp_path, 3).read()
    np.testing.assert_array_equal(clean, background(3))
    np.testing.assert_array_equal(rainy, np.stack([rain_on(background(3), 3000), rain_on(background(3), 3001)]))


def test_halves_of_a_file(tmp_path: Path) -> None:
    save_halves(tmp_path / "a.png", seed=1)
    left, right = Picture(tmp_path / "a.png", "left"), Picture(tmp_path / "a.png", "right")
    np.testing.assert_array_equal(left.read(), background(1))
    np.testing.assert_array_equal(right.read(), rain_on(background(1), 1000))
    assert left.size() == right.size() == (48, 64)


def test_half_of_an_odd_width_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png", background(0, 8, 9))
    for use in (Picture(tmp_path / "a.png", "left").read, Picture(tmp_path / "a.png", "left").size):
        with pytest.raises(ImageError, match=r"a.png: width 9 is odd"):
            use()


def test_unknown_half_is_refused() -> None:
    with pytest.raises(ValueError, match="'left' or 'right', got 'top'"):
        Picture(Path("a.png"), "top")  # type: ignore[arg-type]


def test_pair_of_two_sizes_is_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path / "c.png", background(0, 20, 30))
    save(tmp_path / "r.png", background(0, 20, 31))
    scene = Scene("x", Picture(tmp_path / "c.png"), (Picture(tmp_path / "r.png"),), ("r",))
    with pytest.raises(ImageError, match=r"r\.png is 31x20 but its clean picture .*c\.png is 30x20"):
        scene.read()


def test_scene_needs_a_rainy_picture_and_as_many_labels() -> None:
    with pytest.raises(ValueError, match="no rainy picture"):
        Scene("x", Picture(Path("c.png")), (), ())
    with pytest.raises(ValueError, match="1 rainy pictures and 2 labels"):
        Scene("x", Picture(Path("c.png")), (Picture(Path("r.png")),), ("a", "b"))


def test_synthetic_rain_is_decided_by_its_seed(tmp_path: Path) -> None:
    clean = Picture(save(tmp_path / "c.png", background(5)))
    first, again, other = (RainyPicture(clean, "medium", seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.read(), again.read())
    assert not np.array_equal(first.read(), other.read())
    assert first.read().dtype == np.uint8
    assert first.size() == (48, 64)


def test_extra_rain_and_one_to_one(tmp_path: Path) -> None:
    (scene,) = with_extra_rain([on_disk(tmp_path, 1)], ["light", "heavy"], seed=4)
    assert scene.labels == ("a", "b", "light", "heavy")
    rainy, _ = scene.read()
    np.testing.assert_array_equal(rainy[3], RainyPicture(scene.clean, "heavy", scene.rainy[3].seed).read())
    assert len(with_extra_rain([on_disk(tmp_path, 1)], ["light"], seed=5)[0].rainy) == 3
    singles = one_to_one([scene])
    assert [single.labels for single in singles] == [("a",), ("b",), ("light",), ("heavy",)]
    assert {single.name for single in singles} == {scene.name}
    for k, single in enumerate(singles):
        np.testing.assert_array_equal(single.read()[0][0], rainy[k])


# -- seals --------------------------------------------------------------------------------------------------------


def test_sealed_file_is_not_read_by_any_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_halves(tmp_path / "a.png", seed=1)
    scene = Scene("x", Picture(tmp_path / "a.png", "left"), (Picture(tmp_path / "a.png", "right"),), ("r",))
    os.symlink(tmp_path / "a.png", tmp_path / "link.png")
    monkeypatch.chdir(tmp_path)
    ways = [
        scene.clean,
        scene.rainy[0],
        Picture(tmp_path / "a.png"),
        Picture(tmp_path / "link.png"),
        Picture(Path("a.png")),
        Picture(tmp_path / "sub" / ".." / "a.png"),
        RainyPicture(scene.clean, "light", 0),
        scene,
    ]
    (tmp_path / "sub").mkdir()
    with sealed([scene]):
        for way in ways:
            with pytest.raises(LeakError, match="test set"):
                way.read()
    for way in ways:
        way.read()  # and afterwards it is open again


def test_seals_add_up_and_end_with_their_block(tmp_path: Path) -> None:
    a, b = on_disk(tmp_path, 1), on_disk(tmp_path, 2)
    with sealed([a]):
        with contextlib.suppress(KeyError), sealed([b]):
            for scene in (a, b):
                with pytest.raises(LeakError):
                    scene.read()
            raise KeyError
        b.read()
        with pytest.raises(LeakError):
            a.read()
    a.read()


# -- splits -------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 3)), min_size=3, max_size=40),
    st.integers(0, 99),
    st.floats(0.0, 0.4),
    st.floats(0.0, 0.4),
    st.randoms(),
)
def test_split_is_a_partition_by_background_whatever_the_order(entries, seed, val, test, random) -> None:
    scenes = [named(f"s{name}", rains) for name, rains in entries]
    backgrounds = {scene.name for scene in scenes}
    held_out = [max(1, round(share * len(backgrounds))) if share else 0 for share in (val, test)]
    if sum(held_out) >= len(backgrounds):
        with pytest.raises(ValueError, match="cannot be split"):
            split_scenes(scenes, seed, val, test)
        return
    parts = split_scenes(scenes, seed, val, test)
    names = [{scene.name for scene in part} for part in (parts.train, parts.val, parts.test)]
    assert set.union(*names) == backgrounds
    assert sum(map(len, names)) == len(backgrounds)
    assert sorted(map(repr, parts.train + parts.val + parts.test)) == sorted(map(repr, scenes))
    assert [len(names[1]), len(names[2])] == held_out
    random.shuffle(scenes)
    assert split_scenes(scenes, seed, val, test) == parts


def test_split_depends_on_the_seed_and_is_stable_when_scenes_are_added() -> None:
    scenes = [named(f"s{i}") for i in range(200)]
    first = split_scenes(scenes, 0, val=0, test=0.5)
    other = split_scenes(scenes, 1, val=0, test=0.5)
    common = len({s.name for s in first.test} & {s.name for s in other.test})
    assert 30 < common < 70
    more = split_scenes([*scenes, named("new")], 0, val=0, test=0.5)
    assert len({s.name for s in first.test} ^ {s.name for s in more.test}) <= 2


def test_split_of_too_few_backgrounds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2 background\(s\) cannot be split.*val=0 or test=0"):
        split_scenes([named("a"), named("b")], 0)
    with pytest.raises(ValueError, match="shares"):
        split_scenes([named("a"), named("b")], 0, val=0.6, test=0.6)


def test_split_refuses_a_background_in_two_parts() -> None:
    a = named("a")
    with pytest.raises(ValueError, match=r"'a' is in train and in test"):
        Split(train=(a,), val=(), test=one_to_one([a]))
    other_name = Scene("b", a.clean, a.rainy, a.labels)
    with pytest.raises(ValueError, match=r"a\.png' is in train and in val"):
        Split(train=(a,), val=(other_name,), test=())


def test_split_survives_saving_and_moving(tmp_path: Path) -> None:
    scenes = [
        *(on_disk(tmp_path / "x", seed) for seed in range(4)),
        *with_extra_rain([on_disk(tmp_path / "x", 5)], [0.3], 1),
    ]
    save_halves(tmp_path / "x" / "both.png", seed=9)
    both = Picture(tmp_path / "x" / "both.png", "left"), (Picture(tmp_path / "x" / "both.png", "right"),)
    scenes.append(Scene("雨", *both, ("r",)))
    split = split_scenes(scenes, 0)
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split
    assert Split.load(tmp_path / "split.json").sha256 == split.sha256
    (tmp_path / "x").rename(tmp_path / "moved")
    moved = Split.load(tmp_path / "split.json", root=tmp_path / "moved")
    for scene in moved.train + moved.val + moved.test:
        scene.read()
    assert moved.sha256 == split.sha256  # the hash is of who is where, not of the place


def test_changed_or_foreign_split_file_is_refused(tmp_path: Path) -> None:
    path = split_scenes([named(f"s{i}") for i in range(9)], 0).save(tmp_path / "split.json")
    content = json.loads(path.read_text())
    content["parts"]["train"].append(content["parts"]["test"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"split.json: was changed after it was saved"):
        Split.load(path)
    path.write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"split.json: is not a split"):
        Split.load(path)


@given(st.integers(0, 2**64))
@settings(max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_a_split_file_that_lies_is_told_in_one_line(tmp_path: Path, seed: int) -> None:
    """With a right hash, so that only its contents are wrong; what is still a split is read."""
    random = Random(seed)
    scenes = [*(named(f"s{i}") for i in range(3)), *with_extra_rain([named(f"t{i}") for i in range(3)], [0.3], 1)]
    path = split_scenes(scenes, 0).save(tmp_path / "split.json")
    content = json.loads(path.read_text())
    content["parts"] = mutations.mutated(content["parts"], random)
    text = json.dumps(content["parts"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    content["sha256"] = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    path.write_text(json.dumps(content))
    told = f"{path}: "
    with contextlib.suppress(ValueError):
        try:
            Split.load(path)
        except ValueError as error:
            told = str(error)
            raise
    assert told.startswith(str(path))
    assert "\n" not in told
