"""The nine candidate operations against the textbook: sizes, values, gradients; pooling over windows."""

import numpy as np
import pytest
import textbook
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from manas_lite.networks import ops
from manas_lite.networks.attention import EdgeSlot
from manas_lite.networks.costs import count_parameters
from manas_lite.networks.ops import OPERATIONS, PUBLISHED_OPERATIONS

NAMES = list(PUBLISHED_OPERATIONS)
NORMS = ("batch", "group", "none")
# What a gate returns for an input (B, c, H, W): the factor's own shape.
GATE_SHAPES = {
    "none": (),
    "skip_connect": (),
    "sep_conv_3x3": (2, 8, 6, 5),
    "dil_conv_3x3": (2, 8, 6, 5),
    "sep_conv_3x3_spatial": (2, 1, 6, 5),
    "dil_conv_3x3_spatial": (2, 1, 6, 5),
    "SE": (2, 8, 1, 1),
    "SE_A_M": (2, 8, 1, 1),
    "CBAM": (2, 8, 6, 5),
}


def images(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def test_the_operations_are_the_published_nine_in_the_published_order():
    assert list(textbook.SIZES) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("column", range(4))
def test_parameters_are_the_published_ones(name, column):
    channels = (16, 32, 64, 128)[column]
    assert count_parameters(OPERATIONS[name](channels)) == textbook.SIZES[name][column]
    assert count_parameters(textbook.operation(name, channels)) == textbook.SIZES[name][column]


def test_parameter_shares_of_the_operations_are_the_published_ones():
    totals = {name: sum(sizes) for name, sizes in textbook.SIZES.items()}
    built = {name: sum(count_parameters(OPERATIONS[name](c)) for c in (16, 32, 64, 128)) for name in NAMES}
    assert built == totals
    share = {name: built[name] / sum(built.values()) for name in NAMES}
    published = {"sep_conv_3x3": 0.454, "dil_conv_3x3": 0.227, "SE": 0.103, "SE_A_M": 0.103, "CBAM": 0.110}
    for name, value in published.items():
        assert share[name] == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NAMES)
def test_each_operation_equals_its_textbook_form(name, train, norm):
    ours = OPERATIONS[name](8, norm).double()
    textbook.randomise(ours)
    theirs = textbook.operation(name, 8, norm).double()
    textbook.copy_weights(ours, theirs)
    ours.train(train), theirs.train(train)
    x, y = images(2, 8, 6, 5), images(2, 8, 6, 5)
    out, expected = ours(x), theirs(y)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    cotangent = images(2, 8, 6, 5, seed=1).detach()
    (out * cotangent).sum().backward()
    if expected.requires_grad:
        (expected * cotangent).sum().backward()
        torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-10)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-10)
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):  # running statistics moved alike
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_gates_have_the_published_size_and_range(name):
    gate = OPERATIONS[name](8).double().eval()
    x = images(2, 8, 6, 5)
    factor = gate.gate(x, ops.describe(x, gate.needs))
    assert tuple(factor.shape) == GATE_SHAPES[name]
    if name == "none":
        assert (factor == 0).all()
    elif name == "skip_connect":
        assert (factor == 1).all()
    else:
        assert ((factor > 0) & (factor < 1)).all()
    torch.testing.assert_close(gate(x), x * factor, rtol=0, atol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("names", [NAMES, NAMES[::-1], ["CBAM", "none", "SE"]], ids=["nine", "reversed", "three"])
def test_gate_form_equals_the_textbook_mixture(names, train, norm):
    ours = EdgeSlot(names, 8, norm).double()
    textbook.randomise(ours)
    theirs = textbook.Mixture(names, 8, norm).double()
    textbook.copy_weights(ours, theirs)
    ours.train(train), theirs.train(train)
    results = []
    for module in (ours, theirs):
        x, logits = images(2, 8, 7, 6), images(len(names), seed=2)
        out = module(x, torch.softmax(logits, 0).unbind())
        (out * images(2, 8, 7, 6, seed=1).detach()).sum().backward()
        results.append([out, x.grad, logits.grad, *(p.grad for p in module.parameters()), *module.buffers()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_a_wrong_weight_order_would_be_seen():
    """The comparison above can fail: rolling the weights by one place moves the output visibly."""
    edge = EdgeSlot(NAMES, 8, "batch").double()
    textbook.randomise(edge)
    x, weights = images(2, 8, 7, 6), torch.softmax(images(9, seed=2), 0)
    assert (edge(x, weights.unbind()) - edge(x, weights.roll(1).unbind())).abs().max() > 0.1


def test_an_edge_of_one_operation_needs_no_weights():
    edge = EdgeSlot(["CBAM"], 8, "batch").double().eval()
    x = images(2, 8, 6, 5)
    one = torch.ones((), dtype=torch.float64)
    torch.testing.assert_close(edge(x), edge(x, [one]), rtol=0, atol=1e-12)


def test_batch_norm_inside_gates_has_no_affine_parameters_cbam_excepted():
    for name in NAMES:
        norms = [m for m in OPERATIONS[name](8).modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert all(m.affine == (name == "CBAM") for m in norms)
        assert len(norms) == {"sep_conv_3x3": 2, "sep_conv_3x3_spatial": 2, "dil_conv_3x3": 1}.get(
            name, 1 if name in ("dil_conv_3x3_spatial", "CBAM") else 0
        )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", NAMES)
def test_a_single_pixel_passes_through_every_operation(name, norm):
    out = OPERATIONS[name](8, norm).eval()(torch.rand(1, 8, 1, 1))
    assert out.shape == (1, 8, 1, 1)
    assert out.isfinite().all()


def test_group_norm_equals_torchs_where_torch_accepts_the_map():
    ours, theirs = ops.norm_layer("group", 12).double(), torch.nn.GroupNorm(4, 12).double()
    textbook.randomise(ours)
    theirs.load_state_dict(ours.state_dict())
    x = images(2, 12, 3, 5)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)


def test_unknown_norm_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="unknown norm 'layer': choose one of batch, group, none"):
        ops.norm_layer("layer", 8)


# --- pooling over a window ---


def loop(x: np.ndarray, window: int, reduce) -> np.ndarray:
    """The value of each pixel over the window around it, moved inside the border; one pixel at a time."""
    out = np.empty_like(x)
    height, width = x.shape[2:]
    rows, columns = min(window, height), min(window, width)
    for i in range(height):
        for j in range(width):
            top = min(max(i - rows // 2, 0), height - rows)
            left = min(max(j - columns // 2, 0), width - columns)
            out[:, :, i, j] = reduce(x[:, :, top : top + rows, left : left + columns], axis=(2, 3))
    return out


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_local_pooling_equals_a_plain_loop(height, width, window):
    x = images(2, 3, height, width, seed=height + 10 * width).detach()
    for pool, reduce in ((ops.spatial_mean, np.mean), (ops.spatial_peak, np.max)):
        np.testing.assert_allclose(pool(x, window).numpy(), loop(x.numpy(), window, reduce), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pool", [ops.spatial_mean, ops.spatial_peak])
@pytest.mark.parametrize("window", [7, 8, 100])
def test_a_window_that_covers_the_map_pools_globally(pool, window):
    x = images(2, 3, 7, 5).detach()
    torch.testing.assert_close(pool(x, window), pool(x).expand_as(x), rtol=0, atol=1e-12)


def test_local_mean_keeps_float32_precision_on_large_maps():
    x = 0.5 + 0.01 * torch.rand(1, 1, 512, 512, generator=torch.Generator().manual_seed(0))
    patch = x[..., 400 - 8 : 400 + 8, 300 - 8 : 300 + 8]
    assert ops.spatial_mean(x, 16)[0, 0, 400, 300].item() == pytest.approx(patch.double().mean().item(), abs=1e-6)


def test_descriptors_are_made_only_where_a_gate_reads_them():
    x = images(1, 4, 3, 3)
    seen = ops.describe(x, frozenset({"profile"}))
    assert seen.mean is None
    assert seen.peak is None
    torch.testing.assert_close(seen.profile[:, :1], x.amax(1, keepdim=True))
    torch.testing.assert_close(seen.profile[:, 1:], x.mean(1, keepdim=True))


def test_a_dilated_gate_in_bf16_has_a_finite_gradient_whatever_memory_held_before():
    """oneDNN's own, in bf16, was NaN in about 1 of 100 of these: it reads what was never written."""
    gate = OPERATIONS["dil_conv_3x3"](16, "none")
    conv = gate.body[0][0]
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(torch.randn(1, 16, 8, 8)).dtype == torch.float32
        assert gate.body(torch.randn(1, 16, 8, 8)).dtype == torch.bfloat16
    for _ in range(300):
        junk = [torch.full((size,), torch.nan) for size in (64, 144, 288, 4096, 2**14)]
        del junk
        conv.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            out = conv(torch.randn(8, 16, 32, 32).bfloat16())
        out.float().square().mean().backward()
        assert conv.weight.grad.isfinite().all()
