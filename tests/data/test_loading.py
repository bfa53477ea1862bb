"""Batches are a pure function of (seed, step)."""

import gc
import multiprocessing
import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import save, save_pair

from manas_lite import rain
from manas_lite.data import LeakError, Picture, RainyPicture, Scene, scene_loader, sealed, split_scenes
from manas_lite.data.caching import DiskCache, MemoryCache, scene_digest


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, ...]:
    """Five scenes of R = 3 on disk."""
    folder = tmp_path_factory.mktemp("scenes")
    made = []
    for seed in range(5):
        rainy = [folder / f"{seed}_{k}.png" for k in range(3)]
        for k, path in enumerate(rainy):
            save_pair(path, folder / f"{seed}.png", seed, rain=k)
        made.append(Scene(f"s{seed}", Picture(folder / f"{seed}.png"), tuple(map(Picture, rainy)), ("a", "b", "c")))
    return tuple(made)


def batches(scenes, **more):
    return list(scene_loader(scenes, **{"batch": 2, "patch": 16, "seed": 7, "steps": 6} | more))


def same(a, b) -> bool:
    return len(a) == len(b) and all(
        torch.equal(p, q) for x, y in zip(a, b, strict=True) for p, q in zip(x, y, strict=True)
    )


def test_shapes_and_types(scenes) -> None:
    (batch,) = batches(scenes, steps=1)
    assert batch.rainy.shape == (2, 3, 3, 16, 16)
    assert batch.clean.shape == (2, 3, 16, 16)
    assert batch.rainy.dtype == batch.clean.dtype == torch.uint8
    moved = batch.to("cpu")
    assert moved.rainy.dtype == torch.float32
    torch.testing.assert_close(moved.clean * 255, batch.clean.float())
    assert torch.equal(moved.index, batch.index)
    assert torch.equal(moved.to("cpu").clean, moved.clean)  # twice is once


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9), st.integers(0, 6), st.integers(1, 3))
def test_starting_at_a_step_is_resuming(scenes, seed, start, batch) -> None:
    whole = batches(scenes, seed=seed, batch=batch)
    assert same(whole[start:], batches(scenes, seed=seed, batch=batch, start=start))


def test_workers_and_caches_change_nothing(scenes, tmp_path: Path) -> None:
    reference = batches(scenes, cache=None, fresh_rain=("light",))
    assert same(reference, batches(scenes, workers=2, fresh_rain=("light",)))
    assert same(reference, batches(scenes, cache="memory", fresh_rain=("light",)))
    assert same(reference, batches(scenes, cache=tmp_path / "cache", workers=2, fresh_rain=("light",)))
    assert same(reference, batches(scenes, cache=tmp_path / "cache", fresh_rain=("light",)))


def test_global_random_state_is_neither_read_nor_moved(scenes) -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = batches(scenes, workers=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    torch.manual_seed(1)
    assert same(first, batches(scenes, workers=1))


def test_every_epoch_shows_every_scene_once(scenes) -> None:
    drawn = [int(i) for batch in batches(scenes, steps=10) for i in batch.index]  # 20 draws: 4 epochs of 5
    assert all(Counter(drawn[e : e + 5]) == Counter(range(5)) for e in range(0, 20, 5))
    assert len({tuple(drawn[e : e + 5]) for e in range(0, 20, 5)}) > 1


def test_versions_and_clean_share_crop_and_turn(tmp_path: Path) -> None:
    """Coordinates as pixels: red is the row, green the column, so a patch says where it came from."""
    rows, columns = np.mgrid[:40, :50].astype(np.uint8)
    for k in range(3):
        save(tmp_path / f"{k}.png", np.dstack([rows, columns, np.full_like(rows, k)]))
    scene = Scene("s", Picture(tmp_path / "0.png"), tuple(Picture(tmp_path / f"{k}.png") for k in (1, 2)), ("a", "b"))
    turns, corners = set(), set()
    for batch in batches([scene], batch=8, steps=12):
        for rainy, clean in zip(batch.rainy, batch.clean, strict=True):
            for version in rainy:
                assert torch.equal(version[:2], clean[:2])
            red = clean[0].int()
            turns.add(
                (
                    int(red[0, 0]) < int(red[1, 0]),
                    int(red[0, 0]) < int(red[0, 1]),
                    int(clean[1, 0, 0]) < int(clean[1, 0, 1]),
                )
            )
            corners.add((int(red.min()), int(clean[1].min())))
            assert int(red.max()) - int(red.min()) == 15  # a window, not a resampling
    rows_seen, columns_seen = {r for r, _ in corners}, {c for _, c in corners}
    assert min(rows_seen) < 5
    assert max(rows_seen) > 19
    assert max(columns_seen) > 28  # crops reach everywhere
    plain = batches([scene], batch=8, steps=12, symmetries=1)
    assert all(int(clean[0, 1, 0]) - int(clean[0, 0, 0]) == 1 for batch in plain for clean in batch.clean)
    for symmetries in (8, 4, 2, 1):  # as many of the square's as asked for, nothing else
        seen = {
            tuple((clean[:2].int() - clean[:2].int().amin(dim=(1, 2), keepdim=True)).flatten().tolist())
            for batch in batches([scene], batch=8, steps=12, symmetries=symmetries)
            for clean in batch.clean
        }
        assert len(seen) == symmetries
    upright = batches([scene], batch=8, steps=12, symmetries=2)
    assert all(int(clean[0, 1, 0]) > int(clean[0, 0, 0]) for batch in upright for clean in batch.clean)
    with pytest.raises(ValueError, match="symmetries is 3"):
        batches([scene], symmetries=3)


def test_all_versions_by_default_some_on_request(scenes) -> None:
    fewer = Scene("few", scenes[0].clean, scenes[0].rainy[:2], ("a", "b"))
    (batch,) = batches([fewer, *scenes[1:]], steps=1)
    assert batch.rainy.shape[1] == 2  # the smallest R
    pairs = Counter()
    for batch in batches(scenes[:1], rains=2, steps=60, batch=1, patch=48, symmetries=1, cache="memory"):
        full = scene_versions(scenes[0], batch)
        pairs[tuple(full)] += 1
    assert set(pairs) == {(0, 1), (0, 2), (1, 2)}  # without replacement, in their own order
    assert min(pairs.values()) > 8


def scene_versions(scene: Scene, batch) -> list[int]:
    """Which versions of a scene stand in a batch of one whole-height patch."""
    rainy, clean = scene.read()
    width = batch.clean.shape[-1]
    wanted = batch.clean[0].permute(1, 2, 0).numpy()
    left = next(x for x in range(clean.shape[1] - width + 1) if np.array_equal(clean[:, x : x + width], wanted))
    crops = [version[:, left : left + width] for version in rainy]
    return [
        next(k for k, crop in enumerate(crops) if np.array_equal(crop, version.permute(1, 2, 0).numpy()))
        for version in batch.rainy[0]
    ]


def test_fresh_rain_is_new_for_every_draw(scenes) -> None:
    made = batches(scenes[:1], rains=0, fresh_rain=("medium", 0.9), batch=1, patch=48, symmetries=1, steps=4)
    assert made[0].rainy.shape == (1, 2, 3, 48, 48)
    streaks = [(b.rainy[0, 0].int() - b.clean[0].int()).flatten().tolist() for b in made]
    assert len({tuple(s) for s in streaks}) == 4
    appended = batches(scenes, fresh_rain=("light",), steps=1)
    assert appended[0].rainy.shape[1] == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rains": 4}, "rains=4, but scene .* has 3.*lower `rains`.*fresh_rain"),
        ({"rains": 0}, "at least one rainy version"),
        ({"patch": 49}, r"scene 's0' \(.*\) is 64x48 pixels, smaller than a patch of 49; lower `patch` to 48"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"start": -1}, "start must be at least 0"),
    ],
)
def test_bad_requests_say_what_to_do(scenes, arguments, says) -> None:
    with pytest.raises(ValueError, match=says):
        batches(scenes, **arguments)


def test_no_scenes() -> None:
    with pytest.raises(ValueError, match="no scenes"):
        batches(())


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_cannot_read_a_sealed_scene(scenes, workers: int, tmp_path: Path) -> None:
    split = split_scenes(scenes, 0)
    for cache in ("memory", None, tmp_path / "cache"):
        loader = scene_loader(scenes, batch=5, patch=16, seed=0, steps=2, workers=workers, cache=cache)
        list(loader)  # caches are warm: they must not tell what is sealed either
        with sealed(split.test), pytest.raises(LeakError, match="test set"):
            list(loader)
        with sealed(split.test):
            list(scene_loader(split.train, batch=5, patch=16, seed=0, steps=2, workers=workers, cache=cache))


# -- caches -------------------------------------------------------------------------------------------------------


class Counting:
    """Counts decoded files by patching the one place that decodes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from manas_lite.data import pictures

        self.files: list[str] = []
        read = pictures.read_image

        def counted(path):
            self.files.append(str(path))
            return read(path)

        monkeypatch.setattr(pictures, "read_image", counted)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_cached_files_are_decoded_once(scenes, tmp_path: Path, monkeypatch, kind: str) -> None:
    cache = MemoryCache() if kind == "memory" else DiskCache(tmp_path)
    counting = Counting(monkeypatch)
    batches(scenes, steps=30, cache=cache)
    assert len(counting.files) == len(set(counting.files)) == 20
    if kind == "disk":  # another process finds it warm
        batches(scenes, steps=30, cache=DiskCache(tmp_path))
        assert len(counting.files) == 20


def test_memory_cache_keeps_to_its_limit(scenes, monkeypatch) -> None:
    one = 4 * 48 * 64 * 3
    cache = MemoryCache(limit=2 * one)
    batches(scenes, steps=10, cache=cache)
    assert cache.used == 2 * one
    counting = Counting(monkeypatch)
    batches(scenes, steps=5, batch=1, cache=cache)  # one epoch: three of five scenes are decoded
    assert len(counting.files) == 3 * 4


def test_disk_cache_is_mapped_not_loaded(scenes, tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    cache.read(scenes[0])
    rainy, clean = cache.read(scenes[0])
    assert isinstance(rainy, np.memmap)
    assert isinstance(clean, np.memmap)
    assert not rainy.flags.writeable


def test_disk_cache_notices_a_changed_file(tmp_path: Path) -> None:
    save_pair(tmp_path / "r.png", tmp_path / "c.png", 1)
    scene = Scene("s", Picture(tmp_path / "c.png"), (Picture(tmp_path / "r.png"),), ("r",))
    DiskCache(tmp_path / "cache").read(scene)
    save(tmp_path / "c.png", scene.read()[1][::-1])
    np.testing.assert_array_equal(DiskCache(tmp_path / "cache").read(scene)[1], scene.read()[1])


def test_cached_rain_is_drawn_anew_by_another_version_of_the_synthesiser_alone(tmp_path: Path, monkeypatch) -> None:
    """Whatever else changes in rain.py, a comment say, leaves the cache as it is; files know no version."""
    save_pair(tmp_path / "r.png", tmp_path / "c.png", 1)
    clean = Picture(tmp_path / "c.png")
    filed = Scene("s", clean, (Picture(tmp_path / "r.png"),), ("r",))
    drawn = Scene("s", clean, (RainyPicture(clean, "light", 0),), ("light",))
    before = scene_digest(filed), scene_digest(drawn)
    assert scene_digest(drawn) == before[1]
    monkeypatch.setattr(rain, "VERSION", rain.VERSION + 1)
    assert scene_digest(filed) == before[0]
    assert scene_digest(drawn) != before[1]


def test_damaged_cache_file_is_made_anew(scenes, tmp_path: Path) -> None:
    DiskCache(tmp_path).read(scenes[0])
    (file,) = tmp_path.glob("*.rgb")
    file.write_bytes(file.read_bytes()[:500])
    for _ in range(2):
        np.testing.assert_array_equal(DiskCache(tmp_path).read(scenes[0])[0], scenes[0].read()[0])


def test_full_disk_is_told_once_and_training_goes_on(scenes, tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cache = DiskCache(tmp_path)
    with pytest.warns(UserWarning, match=r"cannot grow.*No space left"):
        cache.read(scenes[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scene in scenes:
            cache.read(scene)
    assert list(tmp_path.iterdir()) == []


def own_megabytes() -> float:
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def memory_of_caches(folder: Path) -> tuple[float, float]:
    """Megabytes that streaming 8 scenes of 5.7 MB adds to this process: from the disk cache, then kept in memory."""
    made = []
    for i in range(8):
        path = save(folder / f"{i}.bmp", np.random.default_rng(i).integers(0, 256, (1000, 1000, 3), dtype=np.uint8))
        made.append(Scene(f"s{i}", Picture(path), (Picture(path),), ("r",)))
    request = {"steps": 8, "batch": 1, "patch": 256}
    batches(made, cache=DiskCache(folder / "cache"), **request)  # filled
    before = own_megabytes()
    batches(made, cache=DiskCache(folder / "cache"), **request)
    after_disk = own_megabytes()
    memory = MemoryCache()
    batches(made, cache=memory, **request)
    return after_disk - before, own_megabytes() - after_disk


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_disk_cache_costs_no_memory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streaming a set through the mapped cache leaves the process as small as it was; keeping it does not."""
    # A fresh process that takes every picture from the system: an old one may have room left by what ran before.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        disk, memory = pool.apply(memory_of_caches, (tmp_path,))
    assert disk < 15
    assert memory > 35
