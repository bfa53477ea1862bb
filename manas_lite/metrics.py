"""PSNR and SSIM, with the convention always named: the same pictures differ by over 1 dB between the two.

| convention | compares | who reports it |
|---|---|---|
| `rgb` | the three channels together | SPANet, derain-toolbox, RealRain-1k |
| `y` | the luma of MATLAB's `rgb2ycbcr`, 16 to 235 of 255, not rounded | PReNet, MPRNet, Restormer |

Both clamp to [0, 1], take 255 grey levels (here 1.0) as the peak, score image by image in float64, and use the SSIM of
Wang et al. 2004: an 11 x 11 Gaussian of sigma 1.5 over the valid area, K1 = 0.01, K2 = 0.03.
"""

from contextlib import nullcontext

import torch
from torch import Tensor

from manas_lite.runs.settings import nearest

CONVENTIONS = ("rgb", "y")
SSIM_SIDE = 11  # of SSIM's Gaussian, in pixels
SIGMA = 1.5
LUMA = (65.481, 128.553, 24.966)  # grey levels of 255; the offset of 16 comes on top
_BLOCK = 64  # output pixels a banded matrix product computes at once


def psnr(x: Tensor, y: Tensor, convention: str = "rgb") -> Tensor:
    """Return the peak signal-to-noise ratio of each image, in dB.

        PSNR = 10 log10(1 / MSE(x, y))

    On grey pictures `y` scores 20 log10(255 / 219) = 1.32 dB above `rgb`: its luma spans 219 levels while the peak
    stays 255.

    Args:
        x: (B, 3, H, W) RGB, the images to judge; clamped to [0, 1].
        y: (B, 3, H, W) RGB in [0, 1], the clean images.
        convention: `rgb` or `y`, see the table above.

    Returns:
        (B,) float64; infinite where the two are equal, NaN where x holds a NaN.

    Raises:
        ValueError: for other shapes or ranges, or an unknown convention.

    Example:
    >>> psnr(torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), 0.1))
    tensor([20.0000], dtype=torch.float64)
    """
    x, y = _channels(x, y, convention)
    return -10 * torch.log10((x - y).square().mean(dim=(1, 2, 3)))


def ssim(x: Tensor, y: Tensor, convention: str = "rgb") -> Tensor:
    """Return the structural similarity (Wang et al. 2004) of each image; 1 where the two are equal.

    Arguments, errors and the (B,) float64 result are those of `psnr`; `rgb` is the mean over the three channels. Sides
    must be at least 11. scikit-image gives the same number for (H, W, C) arrays when called as
    `structural_similarity(x, y, data_range=1, channel_axis=-1, gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False)`, for `y` on the luma in (16 .. 235) / 255.
    """
    return structural_similarity(*_channels(x, y, convention))


def structural_similarity(x: Tensor, y: Tensor, data_range: float = 1.0) -> Tensor:
    """Return the differentiable SSIM of each image, averaged over channels and the valid area.

        SSIM = (2 m_x m_y + C1) (2 c_xy + C2) / ((m_x^2 + m_y^2 + C1) (v_x + v_y + C2))

    with means m, variances v and covariance c under the Gaussian, C1 = (0.01 L)^2, C2 = (0.03 L)^2.

    Args:
        x, y: (B, C, H, W) of one shape, H, W >= 11; nothing is clamped.
        data_range: L, the distance of the darkest from the brightest possible value.

    Returns:
        (B,) float32, or float64 for float64 input; half precision is widened, also under autocast.
    """
    _check_pair(x, y)
    if min(x.shape[-2:]) < SSIM_SIDE:
        height, width = x.shape[-2:]
        raise ValueError(f"SSIM needs sides of at least {SSIM_SIDE} pixels, got {height} x {width}: use larger crops")
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    x, y = x.to(dtype), y.to(dtype)
    # No autocast: it would run the products in half precision, where variances vanish in rounding.
    autocast_on = torch.is_autocast_enabled(x.device.type)
    with torch.autocast(x.device.type, enabled=False) if autocast_on else nullcontext():
        moments = torch.stack([x, y, x * x + y * y, x * y])  # SSIM needs v_x + v_y only, never one alone
        mean_x, mean_y, mean_squares, mean_product = _blur_rows(_blur_rows(moments).mT).mT  # (B, C, H - 10, W - 10)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    luminance = (2 * product + c1) / (squares + c1)
    structure = (2 * (mean_product - product) + c2) / (mean_squares - squares + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def luma(x: Tensor) -> Tensor:
    """Return Y (B, 1, H, W) in [16, 235] / 255 of RGB (B, 3, H, W) in [0, 1]: MATLAB's `rgb2ycbcr`, not rounded."""
    red, green, blue = x.unbind(1)
    return ((LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue + 16) / 255).unsqueeze(1)


def _channels(x: Tensor, y: Tensor, convention: str) -> tuple[Tensor, Tensor]:
    """Return both images checked, clamped, in float64, with the channels that the convention compares."""
    if convention not in CONVENTIONS:
        raise ValueError(f"unknown convention {convention!r}: {nearest(str(convention).lower(), CONVENTIONS)}")
    _check_pair(x, y)
    if x.shape[1] != 3:
        raise ValueError(f"metrics compare RGB images (B, 3, H, W), got {tuple(x.shape)}")
    if not (y.min() >= -1e-6 and y.max() <= 1 + 1e-6):  # NaN fails both
        raise ValueError(f"the second image is the clean one and lies in [0, 1], got {y.min():.4g} to {y.max():.4g}")
    x, y = (image.cpu() if image.device.type == "mps" else image for image in (x, y))  # Apple GPUs have no float64
    x, y = x.double().clamp(0, 1), y.double().clamp(0, 1)
    return (luma(x), luma(y)) if convention == "y" else (x, y)


def _check_pair(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape:
        raise ValueError(f"the two images must have one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"expected images (B, C, H, W), got {tuple(x.shape)}: add a batch axis, image[None]?")
    if not (x.is_floating_point() and y.is_floating_point()):
        raise ValueError(f"expected float images in [0, 1], got {x.dtype} and {y.dtype}: divide by 255?")


def _blur_rows(maps: Tensor) -> Tensor:
    """Return the weighted mean of each 11 neighbours in a column under the Gaussian, (..., H, W) -> (..., H - 10, W).

    Blurring is a product with a banded matrix. A matrix over the whole height would be nearly all zeros. Cut into
    blocks of rows, each with the 10 rows that its last ones reach into, the band stays dense: a patch is one product,
    and a large picture costs no more than it must.
    """
    blocks = []
    for start in range(0, maps.shape[-2] - SSIM_SIDE + 1, _BLOCK):
        rows = maps[..., start : start + _BLOCK + SSIM_SIDE - 1, :]
        blocks.append(_band(rows.shape[-2], rows) @ rows)
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-2)


def _band(size: int, like: Tensor) -> Tensor:
    """Return a matrix (size - 10, size); row i holds the Gaussian weights of pixels i .. i + 10, which sum to 1."""
    column = torch.arange(size, dtype=like.dtype, device=like.device)
    offset = column - column[: size - SSIM_SIDE + 1, None] - SSIM_SIDE // 2
    weights = torch.exp(-offset.square() / (2 * SIGMA**2)) * (offset.abs() <= SSIM_SIDE // 2)
    return weights / weights.sum(dim=1, keepdim=True)
