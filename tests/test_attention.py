"""The attention block against the textbook: values, gradients, sizes, gating over windows."""

import pytest
import textbook
import torch
from torch import Tensor, nn

from manas_lite.networks.attention import AttentionBlock, EdgeSlot, edge_count
from manas_lite.networks.costs import count_parameters
from manas_lite.networks.ops import OPERATIONS, PUBLISHED_OPERATIONS, describe

NAMES = list(PUBLISHED_OPERATIONS)
NORMS = ("batch", "group", "none")


def images(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def pair(edges: list[list[str]], channels: int = 16, norm: str = "batch") -> tuple[AttentionBlock, nn.Module]:
    """Our block and the textbook's, with equal random weights, in float64."""
    ours = AttentionBlock(channels, 2, edges, norm).double()
    theirs = textbook.Attention(edges, channels, norm).double()
    textbook.randomise(ours)
    textbook.copy_weights(ours, theirs)
    return ours, theirs


def rows(count: int = 3, seed: int = 2) -> Tensor:
    return torch.softmax(images(count, len(NAMES), seed=seed).detach(), 1).requires_grad_()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_relaxed_block_equals_the_textbook(train, norm):
    results = []
    for block in pair([NAMES] * 3, norm=norm):
        block.train(train)
        x, weights = images(2, 16, 7, 6), rows()
        out = block(x, [row.unbind() for row in weights])
        (out * images(2, 16, 7, 6, seed=1).detach()).sum().backward()
        results.append([out, x.grad, weights.grad, *(p.grad for p in block.parameters()), *block.buffers()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "choice", [("SE", "CBAM", "sep_conv_3x3"), ("skip_connect", "none", "SE_A_M"), ("none", "none", "none")]
)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_fixed_block_equals_the_textbook(choice, train):
    ours, theirs = pair([[name] for name in choice])
    ours.train(train), theirs.train(train)
    x = images(2, 16, 7, 6)
    ones = torch.ones(3, 1, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x, ones), rtol=0, atol=1e-10)


def test_edges_are_read_in_the_documented_order():
    """(0,0), (1,0), (1,1): cutting one edge cuts the path that the order says."""
    x = images(1, 16, 4, 4)
    identity, cut = ["skip_connect"], ["none"]
    seen: list[Tensor] = []
    for edges in ([cut, identity, identity], [identity, cut, identity], [identity, identity, cut]):
        block, _ = pair([*edges])
        block.project.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        block.eval()(x)
    f0, f1 = x[:, :8], x[:, 8:]
    expected = [(0 * f0, f1), (f0, f0), (f0, f1)]
    for together, (u0, u1) in zip(seen, expected, strict=True):
        torch.testing.assert_close(together[:, :8], u0)
        torch.testing.assert_close(together[:, 8:16], u1)


@pytest.mark.parametrize(("groups", "edges"), [(1, 1), (2, 3), (3, 6), (4, 10)])
def test_edges_of_k_groups(groups, edges):
    assert edge_count(groups) == edges
    block = AttentionBlock(24, groups, [NAMES] * edges, "batch")
    weights = [torch.full((9,), 1 / 9).unbind()] * edges
    assert block(torch.rand(2, 24, 5, 6), weights).shape == (2, 24, 5, 6)


@pytest.mark.parametrize("cut", range(6))
def test_three_groups_follow_the_recursion(cut):
    """K = 3: U_0 = o_0(F_0), U_1 = o_1(F_1) + o_2(U_0), U_2 = o_3(F_2) + o_4(U_0) + o_5(U_1), one edge cut."""
    names = [["none" if edge == cut else "skip_connect"] for edge in range(6)]
    block = AttentionBlock(24, 3, names, "batch").double().eval()
    seen: list[Tensor] = []
    block.project.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = images(1, 24, 4, 4)
    block(x)
    o = [0.0 if edge == cut else 1.0 for edge in range(6)]
    f0, f1, f2 = x.chunk(3, 1)
    u0 = o[0] * f0
    u1 = o[1] * f1 + o[2] * u0
    u2 = o[3] * f2 + o[4] * u0 + o[5] * u1
    torch.testing.assert_close(seen[0][:, :24], torch.cat([u0, u1, u2], 1))


def test_nine_relaxed_blocks_have_the_published_size():
    channels = (32, 64, 128, 256)
    count = sum(
        count_parameters(AttentionBlock(c, 2, [NAMES] * 3, "batch"))
        for branches in (2, 3, 4)
        for c in channels[:branches]
    )
    assert count == sum(count_parameters(textbook.Attention([NAMES] * 3, c)) for n in (2, 3, 4) for c in channels[:n])
    assert round(count / 1e6, 3) == 0.738


def test_block_size_is_the_sum_of_its_parts():
    channels, c = 64, 32
    per_edge = 2624 + 1312 + 42 + 19 + 512 + 512 + 652
    trunk = 3 * c * channels + channels * channels + 2 * 2 * channels  # two 1x1 convolutions with BN
    gates = 2 * c * c // 4 + 2 * channels * channels // 16  # SE_4 of a group, SE_16 of all
    assert count_parameters(AttentionBlock(channels, 2, [NAMES] * 3, "batch")) == 3 * per_edge + trunk + gates


# --- pooling over a window ---


def test_a_covering_window_equals_global_pooling_in_every_gate():
    block, _ = pair([NAMES] * 3)
    block.eval()
    x, weights = images(2, 16, 7, 6), [row.unbind() for row in rows()]
    globally = block(x, weights)
    block.window = 7
    torch.testing.assert_close(block(x, weights), globally, rtol=0, atol=1e-10)
    block.window = 3
    assert (block(x, weights) - globally).abs().max() > 1e-3
    block.window = None
    assert torch.equal(block(x, weights), globally)


@pytest.mark.parametrize("name", ["SE", "SE_A_M", "CBAM"])
def test_a_window_gates_each_pixel_by_what_is_around_it(name):
    """The gate of a pixel is that of a picture cut to its window (of CBAM: the channel part)."""
    gate = OPERATIONS[name](8).double().eval()
    if name == "CBAM":
        nn.init.zeros_(gate.spatial[0].weight)
    x = images(1, 8, 9, 9)
    whole = gate(x, describe(x, gate.needs, window=3))
    patch = gate(x[..., 3:6, 4:7])  # the window of pixel (4, 5)
    torch.testing.assert_close(whole[..., 4, 5], patch[..., 1, 1], rtol=0, atol=1e-12)


def test_descriptors_of_an_edge_are_computed_once(monkeypatch):
    """Nine candidates, one spatial mean, one spatial maximum, one channel profile (and CBAM's own)."""
    from manas_lite.networks import ops

    calls: list[str] = []
    for name in ("spatial_mean", "spatial_peak", "channel_profile"):
        original = getattr(ops, name)
        monkeypatch.setattr(ops, name, lambda *a, f=original, n=name: (calls.append(n), f(*a))[1])
    edge = EdgeSlot(NAMES, 8, "batch")
    edge(torch.rand(1, 8, 4, 4), torch.full((9,), 1 / 9).unbind())
    assert sorted(calls) == ["channel_profile", "channel_profile", "spatial_mean", "spatial_peak"]
