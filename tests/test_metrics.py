"""PSNR and SSIM against scikit-image, and the published sets' rainy-input figures."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from skimage.metrics import structural_similarity as skimage_ssim
from torch.utils._python_dispatch import TorchDispatchMode

from manas_lite import metrics
from manas_lite.metrics import psnr, ssim, structural_similarity


def tensor(*arrays: np.ndarray) -> torch.Tensor:
    """(H, W, 3) arrays in [0, 1] -> (B, 3, H, W)."""
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def matlab_y(image: np.ndarray) -> np.ndarray:
    """The formula of MATLAB's rgb2ycbcr on a float image, left in 0..255 and not rounded."""
    return 16 + image @ np.array([65.481, 128.553, 24.966])


def oracle(x: np.ndarray, y: np.ndarray, convention: str) -> tuple[float, float]:
    """(PSNR, SSIM) by scikit-image, of (H, W, 3) float64 in [0, 1]."""
    x, y = (x * 255, y * 255) if convention == "rgb" else (matlab_y(x), matlab_y(y))
    similarity = skimage_ssim(
        x, y, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        channel_axis=-1 if convention == "rgb" else None,
    )  # fmt: skip
    return peak_signal_noise_ratio(y, x, data_range=255), similarity


@pytest.mark.parametrize("convention", metrics.CONVENTIONS)
@pytest.mark.parametrize("size", [(11, 11), (11, 40), (64, 64), (75, 74), (140, 97)])
def test_both_metrics_equal_scikit_image(size, convention):
    rng = np.random.default_rng(0)
    clean = [rng.random((*size, 3)) for _ in range(3)]
    noisy = [np.clip(c + s * rng.standard_normal(c.shape), 0, 1) for c, s in zip(clean, (0.01, 0.1, 0.5), strict=True)]
    expected = np.array([oracle(x, y, convention) for x, y in zip(noisy, clean, strict=True)])
    assert np.allclose(psnr(tensor(*noisy), tensor(*clean), convention), expected[:, 0], rtol=0, atol=1e-6)
    assert np.allclose(ssim(tensor(*noisy), tensor(*clean), convention), expected[:, 1], rtol=0, atol=1e-6)


@given(
    x=hnp.arrays(np.float64, (12, 13, 3), elements=st.floats(0, 1)),
    y=hnp.arrays(np.float64, (12, 13, 3), elements=st.floats(0, 1)),
    convention=st.sampled_from(metrics.CONVENTIONS),
)
@settings(max_examples=40, deadline=None)
def test_scikit_image_agrees_on_any_pair(x, y, convention):
    with np.errstate(divide="ignore"):
        expected = oracle(x, y, convention)
    assert ssim(tensor(x), tensor(y), convention).item() == pytest.approx(expected[1], abs=1e-6)
    if np.mean((x - y) ** 2) > 1e-20:
        assert psnr(tensor(x), tensor(y), convention).item() == pytest.approx(expected[0], abs=1e-6)


def test_luma_is_matlabs():
    """Black, white and the primaries, as MATLAB's documentation of rgb2ycbcr gives the range: 16 to 235."""
    colours = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])[:, :, None, None]
    grey_levels = metrics.luma(colours.double()).flatten() * 255
    assert np.allclose(grey_levels, [16, 235, 81.481, 144.553, 40.966])


def test_outputs_are_clamped_before_scoring():
    clean = torch.ones(1, 3, 16, 16)
    assert psnr(clean + 3, clean).item() == math.inf
    assert ssim(clean + 3, clean).item() == pytest.approx(1)
    shot = clean.clone()
    shot[..., 0] = -5
    assert psnr(shot, clean).item() == pytest.approx(10 * math.log10(16))


def test_equal_images_score_infinity_and_one_and_a_nan_stays_visible():
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for convention in metrics.CONVENTIONS:
        assert torch.isinf(psnr(image, image, convention)).all()
        assert torch.allclose(ssim(image, image, convention), torch.ones(2, dtype=torch.float64))
    broken = image.clone()
    broken[1, 0, 3, 3] = math.nan
    assert torch.equal(psnr(broken, image).isnan(), torch.tensor([False, True]))


def test_full_range_luma_is_lower_than_matlabs_by_a_constant():
    """On grey pictures Y is the grey level squeezed into 219 of 255 levels: 20 log10(255 / 219) dB apart."""
    grey = torch.rand(1, 1, 16, 16, dtype=torch.float64).expand(1, 3, 16, 16)
    other = (grey + 0.05).clamp(0, 1)
    assert (psnr(other, grey, "y") - psnr(other, grey, "rgb")).item() == pytest.approx(20 * math.log10(255 / 219))


def test_scores_are_per_image_and_in_float64():
    x, y = torch.rand(2, 4, 3, 20, 24, generator=torch.Generator().manual_seed(1))
    for metric in (psnr, ssim):
        together = metric(x, y)
        assert together.shape == (4,)
        assert together.dtype == torch.float64
        assert torch.equal(together, torch.cat([metric(a[None], b[None]) for a, b in zip(x, y, strict=True)]))


# ---------------------------------------------------------------- the differentiable form


@pytest.mark.parametrize("size", [(11, 11), (13, 80), (74, 75), (150, 12)])
def test_structural_similarity_is_scikit_images_for_any_channels_and_range(size):
    rng = np.random.default_rng(2)
    x, y = rng.random((2, *size, 2)) * 7
    expected = skimage_ssim(
        x, y, data_range=7, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=-1
    )
    assert structural_similarity(tensor(x), tensor(y), data_range=7).item() == pytest.approx(expected, abs=1e-12)
    single = structural_similarity(tensor(x).float(), tensor(y).float(), data_range=7)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, abs=2e-5)


def test_structural_similarity_passes_gradcheck():
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.rand(2, 1, 12, 13, dtype=torch.float64, generator=generator).requires_grad_() for _ in "xy")
    assert torch.autograd.gradcheck(structural_similarity, (x, y))
    assert torch.autograd.gradgradcheck(structural_similarity, (x[:1], y[:1]))  # the exact hypergradient needs it


def test_gradients_agree_across_block_borders(monkeypatch):
    generator = torch.Generator().manual_seed(4)
    x, y = torch.rand(2, 1, 3, 90, 100, dtype=torch.float64, generator=generator)

    def gradient() -> torch.Tensor:
        leaf = x.clone().requires_grad_()
        structural_similarity(leaf, y).sum().backward()
        return leaf.grad

    blocked = gradient()
    monkeypatch.setattr(metrics, "_BLOCK", 1000)
    assert torch.allclose(blocked, gradient(), rtol=0, atol=1e-15)


def test_gradients_are_finite_on_flat_images():
    x = torch.zeros(1, 3, 16, 16, requires_grad=True)
    structural_similarity(x, torch.zeros(1, 3, 16, 16)).sum().backward()
    assert x.grad.isfinite().all()


def test_autocast_does_not_lower_the_precision():
    x, y = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    full = structural_similarity(x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(structural_similarity(x, y), full)
    assert structural_similarity(x.bfloat16(), y.bfloat16()).dtype == torch.float32


def test_dispatches_do_not_grow_with_the_batch():
    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.calls += 1
            return func(*args, **(kwargs or {}))

    counts = []
    for batch in (1, 32):
        x, y = torch.rand(2, batch, 3, 64, 64)
        with Count() as count:
            structural_similarity(x, y)
        counts.append(count.calls)
    assert counts[0] == counts[1] < 90


# ---------------------------------------------------------------- rainy-input figures of real sets


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")) / 255.0


def pairs(folder: Path):
    for rainy in sorted((folder / "rain").iterdir()):
        yield read(rainy), read(folder / "norain" / rainy.name)


def rain800_pairs(folder: Path):
    groups = json.loads((folder / "groups.json").read_text())
    assert groups
    for path in sorted((folder / "training").glob("*.jpg")):
        both = read(path)
        half = both.shape[1] // 2
        yield both[:, half : 2 * half], both[:, :half]


def sirr_pairs(folder: Path):
    for rainy in sorted((folder / "input_val").iterdir()):
        yield read(rainy), read(folder / "label_val" / rainy.name.replace("input", "norain"))


def mean_psnr(images) -> tuple[float, float]:
    scores = [[psnr(tensor(x), tensor(y), c).item() for c in ("y", "rgb")] for x, y in images]
    return tuple(np.mean(scores, axis=0))


@pytest.mark.parametrize(("folder", "y", "rgb"), [
    ("Rain100L/test_sample", 27.71, 26.36),
    ("Rain100H/test_sample", 13.67, 12.25),
])  # fmt: skip
def test_rainy_input_figures_of_the_samples(real_data, folder, y, rgb):
    assert mean_psnr(pairs(real_data / folder)) == pytest.approx((y, rgb), abs=0.0051)


def test_rainy_input_figures_of_sirr(real_data):
    assert mean_psnr(sirr_pairs(real_data / "SIRR_val")) == pytest.approx((23.53, 22.06), abs=0.0051)


@pytest.mark.slow
def test_rainy_input_figures_of_all_rain100l(real_data):
    assert mean_psnr(pairs(real_data / "Rain100L/train")) == pytest.approx((26.71, 25.34), abs=0.0051)


@pytest.mark.slow
def test_rainy_input_figures_of_rain800(real_data):
    assert mean_psnr(rain800_pairs(real_data / "Rain800_groups")) == pytest.approx((22.89, 21.44), abs=0.0051)


def test_ssim_of_the_rain100l_sample_is_scikit_images(real_data):
    for x, y in list(pairs(real_data / "Rain100L/test_sample"))[:2]:
        assert ssim(tensor(x), tensor(y), "y").item() == pytest.approx(oracle(x, y, "y")[1], abs=1e-6)


# ---------------------------------------------------------------- bad input


IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: psnr(IMAGE, IMAGE, "Y"), "did you mean 'y'"),
    (lambda: ssim(IMAGE, IMAGE, "bgr"), "did you mean 'rgb'"),
    (lambda: psnr(IMAGE, IMAGE[..., 1:]), "one shape"),
    (lambda: psnr(IMAGE[0], IMAGE[0]), "add a batch axis"),
    (lambda: psnr(IMAGE[:, :1], IMAGE[:, :1]), r"RGB images \(B, 3, H, W\)"),
    (lambda: psnr(IMAGE[:0], IMAGE[:0]), r"expected images \(B, C, H, W\)"),
    (lambda: psnr(IMAGE, IMAGE * 255), r"the clean one and lies in \[0, 1\]"),
    (lambda: psnr(IMAGE, IMAGE * math.nan), r"the clean one and lies in \[0, 1\]"),
    (lambda: psnr((IMAGE * 255).byte(), (IMAGE * 255).byte()), "expected float images"),
    (lambda: ssim(IMAGE[..., :10], IMAGE[..., :10]), "at least 11 pixels, got 16 x 10"),
    (lambda: structural_similarity(IMAGE[..., :9, :], IMAGE[..., :9, :]), "11 pixels, got 9 x 16"),
    (lambda: structural_similarity(IMAGE, IMAGE[:, :2]), "one shape"),
])  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
