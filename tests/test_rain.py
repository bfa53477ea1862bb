"""Synthetic rain: ranges, seeds, angles, densities, calibration."""

import csv
import hashlib
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.feature import structure_tensor

from manas_lite import rain

PHOTOS = Path(rain.__file__).parent / "assets" / "photos"
LEVELS = ("light", "medium", "heavy")


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """Every bundled photograph, uint8 (H, W, 3)."""
    with open(PHOTOS / "index.csv", newline="", encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    return [np.asarray(Image.open(PHOTOS / name).convert("RGB")) for name in names]


def grey(height: int = 64, width: int = 64, value: float = 0.4) -> np.ndarray:
    return np.full((height, width, 3), value)


def decibels(rainy: np.ndarray, clean: np.ndarray) -> float:
    return -10 * math.log10(np.mean((rainy.astype(np.float64) - clean / 255.0) ** 2))


def recovered_angle(streaks: np.ndarray) -> float:
    """Degrees from the vertical, by scikit-image's structure tensor: streaks run across their gradient."""
    rr, rc, cc = (part.sum() for part in structure_tensor(streaks.astype(np.float64), sigma=1, order="rc"))
    across = 0.5 * math.atan2(2 * rc, cc - rr)  # the gradient's angle from the x axis
    return -math.degrees(across)


# ---------------------------------------------------------------- ranges and identities


@given(
    level=st.floats(0, 6),
    seed=st.integers(0, 2**64),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    wind=st.none() | st.floats(-89, 89),
    blend=st.sampled_from(rain.BLENDS),
    value=st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_ranges_hold_for_any_size_level_seed_wind_and_blend(level, seed, height, width, wind, blend, value):
    streaks, parameters = rain.rain_streaks(height, width, level, seed, wind=wind)
    assert streaks.shape == (height, width)
    assert streaks.dtype == np.float32
    assert streaks.min() >= 0
    assert streaks.max() < 1
    rainy = rain.add_rain(grey(height, width, value), level, seed, blend=blend, wind=wind)
    assert rainy.shape == (height, width, 3)
    assert rainy.dtype == np.float32
    assert rainy.min() >= np.float32(value) - 1e-6  # rain only ever brightens
    assert rainy.max() <= 1
    assert parameters.level == level
    if wind is not None:
        assert parameters.angle == wind


@pytest.mark.parametrize("blend", rain.BLENDS)
def test_level_zero_is_the_identity(blend):
    clean = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    assert np.array_equal(rain.add_rain(clean, 0, 5, blend=blend), clean.astype(np.float32) / np.float32(255))


def test_pixels_no_streak_touches_keep_their_value_exactly():
    streaks, _ = rain.rain_streaks(96, 96, 0.3, 1)
    rainy = rain.add_rain(grey(96, 96), 0.3, 1)
    dry = streaks == 0
    assert 0.3 < dry.mean() < 1
    assert (rainy[dry] == np.float32(0.4)).all()
    assert (rainy[~dry] > np.float32(0.4)).all()


def test_blends_follow_their_formulas():
    background = np.random.default_rng(1).random((20, 30, 3)).astype(np.float32)
    streaks, _ = rain.rain_streaks(20, 30, "heavy", 2)
    screen = 1 - (1 - background) * (1 - streaks[..., None])
    added = np.clip(background + streaks[..., None], 0, 1)
    assert np.allclose(rain.composite(background, streaks), screen, atol=1e-6)
    assert np.allclose(rain.composite(background, streaks, "add"), added, atol=1e-6)
    assert np.array_equal(rain.add_rain(background, "heavy", 2), rain.composite(background, streaks))


def test_fog_follows_koschmieder_and_lies_behind_the_rain():
    clean, depth = grey(16, 24, 0.2), np.linspace(0, 3, 24)[None].repeat(16, 0)
    through = np.exp(-0.7 * depth)[..., None]
    foggy = through * 0.2 + (1 - through) * rain.ATMOSPHERE
    assert np.allclose(rain.add_fog(clean, depth, 0.7), np.broadcast_to(foggy, clean.shape), atol=1e-6)
    assert np.allclose(rain.add_rain(clean, 0, 0, depth=depth, fog=0.7), foggy, atol=1e-6)
    streaks, _ = rain.rain_streaks(16, 24, "heavy", 3)
    rainy = rain.add_rain(clean, "heavy", 3, depth=depth, fog=0.7)
    assert np.allclose(rainy, 1 - (1 - foggy) * (1 - streaks[..., None]), atol=1e-6)


def test_fog_from_a_real_stereo_pair_hides_what_is_far():
    from skimage.data import stereo_motorcycle

    left, _, disparity = stereo_motorcycle()
    known = np.isfinite(disparity) & (disparity > 0)
    depth = np.where(known, 1 / np.where(known, disparity, 1), 0)
    foggy = rain.add_fog(left, depth / depth.max(), 3.0)
    near, far = depth[known] < np.median(depth[known]), depth[known] >= np.median(depth[known])
    change = np.abs(foggy - left / 255.0).mean(2)[known]
    assert change[far].mean() > 1.2 * change[near].mean()


# ---------------------------------------------------------------- seeds


def test_same_seed_same_bytes_in_another_process_and_other_seeds_differ():
    program = (
        "import hashlib; from manas_lite.rain import rain_streaks;"
        "print(hashlib.sha256(rain_streaks(70, 50, 'heavy', (3, 1))[0].tobytes()).hexdigest())"
    )
    root = Path(rain.__file__).parents[1]
    other = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    here = rain.rain_streaks(70, 50, "heavy", (3, 1))[0]
    assert hashlib.sha256(here.tobytes()).hexdigest() == other.stdout.strip()
    for seed in ((3, 2), (3, 1, 0), 3, (3,), (1, 3)):
        assert not np.array_equal(here, rain.rain_streaks(70, 50, "heavy", seed)[0]), seed
    assert np.array_equal(rain.rain_streaks(9, 9, 1, 3)[0], rain.rain_streaks(9, 9, 1, (3,))[0])


def test_drawing_leaves_the_global_generator_alone():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    rain.rain_scene(grey(16, 16), LEVELS, 0)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


# ---------------------------------------------------------------- geometry and amount


@pytest.mark.parametrize("wind", [-60, -30, -12, 0, 7, 25, 45])
@pytest.mark.parametrize("level", LEVELS)
def test_the_angle_can_be_recovered(level, wind):
    streaks, _ = rain.rain_streaks(300, 300, level, 11, wind=wind)
    assert abs(recovered_angle(streaks) - wind) < 5


def test_positive_wind_moves_the_foot_of_a_streak_to_the_right():
    kernel = rain._line_kernel(rain.Layer(angle=30, length=31, width=1.5, density=0, opacity=1))
    middle = len(kernel) // 2
    top, bottom = kernel[middle - 8].argmax(), kernel[middle + 8].argmax()
    assert bottom > middle > top


@pytest.mark.parametrize("level", LEVELS)
def test_mean_optical_depth_is_density_times_streak_area(level):
    """Campbell's theorem for a Poisson process: the mean is the intensity times the kernel's integral."""
    measured, expected = [], []
    for seed in range(8):
        streaks, drawn = rain.rain_streaks(400, 400, level, seed)
        measured.append(-np.log1p(-streaks.astype(np.float64)).mean())
        area = (1 - rain.TAPER / 2) * math.sqrt(2 * math.pi) / math.sqrt(8 * math.log(2))
        expected.append(sum(la.density * la.opacity * area * la.length * la.width for la in drawn.layers))
    assert np.allclose(measured, expected, rtol=0.15)
    assert np.mean(measured) == pytest.approx(np.mean(expected), rel=0.05)


@pytest.mark.parametrize(("level", "layers", "length", "density"), [
    ("light", 1, (9, 25), (0.002, 0.005)),
    ("medium", 2, (15, 35), (0.005, 0.018)),
    ("heavy", 4, (25, 60), (0.010, 0.050)),
])  # fmt: skip
def test_drawn_parameters_stay_in_their_ranges(level, layers, length, density):
    for seed in range(30):
        _, drawn = rain.rain_streaks(4, 4, level, seed)
        assert len(drawn.layers) == layers
        assert abs(drawn.angle) <= rain.MAX_WIND
        assert length[0] <= drawn.length <= length[1]
        assert 1 <= drawn.width <= 3
        assert density[0] <= drawn.density <= density[1]
        for far, near in zip(drawn.layers, drawn.layers[1:], strict=False):  # nearer: longer, wider, rarer, brighter
            assert far.length < near.length
            assert far.width < near.width
            assert far.density > near.density
            assert far.opacity < near.opacity
        assert all(abs(layer.angle - drawn.angle) <= rain.GUST for layer in drawn.layers)


def test_rain_is_as_dense_at_the_edge_as_in_the_middle():
    mean = np.mean([rain.rain_streaks(64, 64, "heavy", seed, wind=20)[0] for seed in range(150)], axis=0)
    edge = np.concatenate([mean[:6].ravel(), mean[-6:].ravel(), mean[:, :6].ravel(), mean[:, -6:].ravel()])
    assert edge.mean() == pytest.approx(mean[20:44, 20:44].mean(), rel=0.06)


# ---------------------------------------------------------------- scenes


def test_a_scene_is_one_background_under_several_rains():
    clean = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    scene = rain.rain_scene(clean, ("light", "medium", 2.5, "heavy"), seed=4)
    assert scene.rainy.shape == (4, 40, 56, 3)
    assert scene.streaks.shape == (4, 40, 56)
    assert [p.level for p in scene.parameters] == [1, 2, 2.5, 3]
    assert np.array_equal(scene.clean, clean.astype(np.float32) / np.float32(255))
    for version, drawn in enumerate(scene.parameters):
        assert abs(drawn.angle - scene.wind) <= rain.JITTER
        assert drawn.seed == (4, version)
        alone = rain.add_rain(clean, drawn.level, drawn.seed, wind=drawn.angle)
        assert np.array_equal(scene.rainy[version], alone)
    assert len({drawn.angle for drawn in scene.parameters}) == 4
    same_level = rain.rain_scene(clean, ("heavy", "heavy"), seed=4)
    assert not np.array_equal(same_level.rainy[0], same_level.rainy[1])


def test_a_version_does_not_depend_on_those_after_it():
    clean = grey(24, 24)
    short, long = rain.rain_scene(clean, ("heavy",), 7), rain.rain_scene(clean, ("heavy", "light", 1.5), 7)
    assert short.wind == long.wind
    assert np.array_equal(short.rainy[0], long.rainy[0])


# ---------------------------------------------------------------- calibration


def test_levels_are_calibrated_on_the_bundled_photographs(photos):
    targets = {"light": 26, "medium": 21, "heavy": 14}
    for level, target in targets.items():
        measured = [decibels(rain.add_rain(photo, level, (0, i)), photo) for i, photo in enumerate(photos)]
        assert np.mean(measured) == pytest.approx(target, abs=1.0), level


def test_mean_psnr_strictly_falls_with_the_level(photos):
    crops = [photo[40:168, 40:168] for photo in photos]
    means = [
        np.mean([decibels(rain.add_rain(crop, level, (1, i)), crop) for i, crop in enumerate(crops)])
        for level in (0.25, 0.5, 1, 1.5, 2, 2.5, 3, 4)
    ]
    assert (np.diff(means) < 0).all(), means


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(("call", "message"), [
    (lambda: rain.add_rain(grey(), "hevy", 0), "did you mean 'heavy'"),
    (lambda: rain.add_rain(grey(), -1, 0), "finite number >= 0"),
    (lambda: rain.add_rain(grey(), math.nan, 0), "finite number >= 0"),
    (lambda: rain.add_rain(grey(), 1, -3), "seed is an int >= 0"),
    (lambda: rain.add_rain(grey(), 1, 0.5), "seed is an int >= 0"),
    (lambda: rain.add_rain(grey(), 1, ()), "seed is an int >= 0"),
    (lambda: rain.add_rain(grey(), 1, 0, wind=90), "wind is an angle"),
    (lambda: rain.add_rain(grey(), 1, 0, wind=math.nan), "wind is an angle"),
    (lambda: rain.add_rain(grey(), 1, 0, blend="multiply"), "unknown blend 'multiply'"),
    (lambda: rain.add_rain(grey()[..., 0], 1, 0), r"shape \(H, W, 3\)"),
    (lambda: rain.add_rain(np.zeros((3, 8, 8)), 1, 0), r"shape \(H, W, 3\)"),
    (lambda: rain.add_rain(np.zeros((0, 8, 3)), 1, 0), r"shape \(H, W, 3\)"),
    (lambda: rain.add_rain(grey() * 255, 1, 0), r"lies in \[0, 1\]"),
    (lambda: rain.add_rain(grey() * math.nan, 1, 0), r"lies in \[0, 1\]"),
    (lambda: rain.add_rain(np.zeros((8, 8, 3), np.uint16), 1, 0), "uint8, or float"),
    (lambda: rain.add_rain(grey(), 1, 0, fog=1.0), "fog needs a depth map"),
    (lambda: rain.add_rain(grey(), 1, 0, fog=-1.0, depth=np.ones((64, 64))), "fog must be"),
    (lambda: rain.add_rain(grey(), 1, 0, fog=1.0, depth=np.ones((64, 63))), "does not cover"),
    (lambda: rain.add_rain(grey(), 1, 0, fog=1.0, depth=np.full((64, 64), np.inf)), "depth must be finite"),
    (lambda: rain.composite(grey(), np.zeros((3, 3))), "do not cover"),
    (lambda: rain.composite(grey(), np.full((64, 64), 200.0)), "divide an 8-bit layer"),
    (lambda: rain.rain_scene(grey(), "heavy"), "levels must be a sequence"),
    (lambda: rain.rain_scene(grey(), ()), "levels must be a sequence"),
    (lambda: rain.rain_scene(grey(), ("heavy",), jitter=90), "jitter is an angle"),
    (lambda: rain.rain_streaks(0, 5, 1, 0), "at least one pixel"),
])  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- rain of any kind ---


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**9), height=st.integers(1, 40), width=st.integers(1, 40), value=st.floats(0, 1))
def test_wild_rain_is_a_picture_of_any_size(seed, height, width, value):
    clean = np.full((height, width, 3), value, np.float32)
    rainy = rain.wild_rain(clean, seed)
    assert (rainy.shape, rainy.dtype) == (clean.shape, np.float32)
    assert rainy.min() >= 0
    assert rainy.max() <= 1
    assert np.array_equal(rainy, rain.wild_rain(clean, seed))


def test_wild_rain_spans_what_the_published_sets_span_and_leaves_a_quarter_dry(photos):
    """PSNR of Rain100L is about 25 dB (RGB), of Rain800 21, of Rain100H 12: none is outside the drawn rain."""
    clean = photos[0][:96, :96]
    drawn = [rain.wild_rain(clean, (7, k)) for k in range(300)]
    errors = np.array([((each - rain.as_float(clean)) ** 2).mean() for each in drawn])
    dry = errors == 0
    assert 0.17 < dry.mean() < 0.33
    psnr = -10 * np.log10(errors[~dry])
    assert (psnr < 13).mean() > 0.03
    assert (psnr > 25).mean() > 0.2
    assert 18 < np.median(psnr) < 32


def test_wild_rain_also_darkens_what_is_brighter_than_it():
    white = np.ones((48, 48, 3), np.float32)
    darkest = [rain.wild_rain(white, seed).min() for seed in range(60)]
    assert sum(value < 0.95 for value in darkest) > 10


def test_wild_rain_has_one_wind_or_several(monkeypatch):
    seen = []
    draw = rain._draw_streaks
    monkeypatch.setattr(rain, "_draw_streaks", lambda h, w, layers, rng: seen.append(layers) or draw(h, w, layers, rng))
    for seed in range(120):
        rain.wild_rain(np.zeros((8, 8, 3), np.float32), seed)
    spans = [max(x.angle for x in layers) - min(x.angle for x in layers) for layers in seen if len(layers) > 1]
    assert sum(span > 20 for span in spans) > 15
    assert sum(span <= 2 * rain.GUST for span in spans) > 15
