"""NIQE and PIQE against published implementations, and against what must hold of any of them."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from manas_course.downstream.quality import _blocky, _halved, niqe, piqe
from manas_lite.photos.images import read_image

# Values of mmagic 1.2.0 (mmagic.evaluation.metrics.niqe.niqe, convert_to="gray") and of pypiqe 1.2, on the bundled
# photographs decoded by Pillow 13.0. mmagic computes in float32: hence the tolerance.
PUBLISHED = {
    "skimage_astronaut": (2.837148158024368, 34.80899115565293),
    "skimage_chelsea": (2.4003496858510958, 31.137408721918124),
    "skimage_coffee": (3.9218192498287308, 27.28305825255315),
    "coco_000000000071": (3.946659097134111, 46.60616950574285),
    "coco_000000000127": (2.203686954987538, 36.466283983895316),
    "coco_000000000508": (4.726771619336349, 13.831595359646675),
}


def photo(name, repository):
    return read_image(repository / "manas_lite" / "assets" / "photos" / f"{name}.jpg")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_implementations_agree(name, repository):
    picture = photo(name, repository)
    assert niqe(picture) == pytest.approx(PUBLISHED[name][0], rel=5e-4)
    assert piqe(picture) == pytest.approx(PUBLISHED[name][1], rel=1e-5)


def test_piqe_agrees_with_pypiqe_now(repository):
    """The package itself, where it is installed (it needs OpenCV), on a picture of odd size too."""
    published = pytest.importorskip("pypiqe", reason="pip install pypiqe opencv-python-headless, to compare live")
    picture = photo("skimage_coffee", repository)[:131, :203]
    assert piqe(picture) == pytest.approx(published.piqe(picture[..., ::-1].copy())[0], rel=1e-5)


@pytest.mark.parametrize("measure", [niqe, piqe])
def test_noise_is_worse(measure, repository):
    picture = photo("coco_000000000127", repository)
    noise = np.random.default_rng(0).normal(0, 30, picture.shape)
    assert measure((picture + noise).clip(0, 255).astype(np.uint8)) > measure(picture) + 1


def test_niqe_dislikes_blur(repository):
    picture = photo("coco_000000000127", repository)
    assert niqe(gaussian_filter(picture, (3, 3, 0))) > niqe(picture) + 1


def test_grey_and_colour_agree():
    grey = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)
    colour = np.repeat(grey[..., None], 3, 2)
    assert niqe(grey) == pytest.approx(niqe(colour))
    assert piqe(grey) == pytest.approx(piqe(colour))


def test_halving_keeps_the_mean_and_a_gradient():
    """MATLAB's half-size bicubic: a straight ramp stays one, sampled midway between pixels."""
    ramp = np.add.outer(np.arange(40.0), 2 * np.arange(60.0))
    half = _halved(ramp)
    assert half.shape == (20, 30)
    exact = np.add.outer(2 * np.arange(20) + 0.5, 2 * (2 * np.arange(30) + 0.5))
    np.testing.assert_allclose(half[3:-3, 3:-3], exact[3:-3, 3:-3], atol=1e-9)
    assert half.mean() == pytest.approx(ramp.mean())


def test_blocky_by_hand():
    rng = np.random.default_rng(0)
    lively = rng.normal(0, 1, (16, 16))
    flat = lively.copy()
    flat[-1, 5:11] = 0.3  # six equal pixels on the lower border
    inside = lively.copy()
    inside[8, 5:11] = 0.3  # not on a border
    assert _blocky(np.stack([lively, flat, inside])).tolist() == [False, True, False]


def test_uniform_pictures_and_bad_ones():
    assert piqe(np.zeros((64, 64, 3), np.uint8)) == 100
    assert piqe(np.full((64, 64, 3), 90, np.uint8)) == 100
    assert np.isfinite(piqe(np.eye(5, dtype=np.uint8) * 255))
    with pytest.raises(ValueError, match="150x100 pixels is too small for NIQE"):
        niqe(np.zeros((100, 150, 3), np.uint8))
    flat = np.zeros((192, 192), np.uint8)
    flat[:96, :96] = np.random.default_rng(0).integers(0, 256, (96, 96))  # one patch of four has no covariance
    for picture, count in ((np.zeros((192, 192, 3), np.uint8), 0), (flat, 1)):
        with pytest.raises(ValueError, match=f"too flat for NIQE: of 4 patches only {count} show"):
            niqe(picture)
    for bad in (np.zeros((200, 200, 3)), np.zeros((200, 200, 4), np.uint8)):
        with pytest.raises(ValueError, match="expected uint8"):
            niqe(bad)
        with pytest.raises(ValueError, match="expected uint8"):
            piqe(bad)
