"""Stem, transition, parallel and fusion modules against the textbook; none of them writes into its input."""

import pytest
import textbook
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manas_lite.networks.attention import AttentionBlock
from manas_lite.networks.costs import count_parameters
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.modules import (
    MODULES,
    PUBLISHED_MODULES,
    Bottleneck,
    BottleneckStem,
    FusionModule,
    ModuleSlot,
    ParallelModule,
    Transition,
    UnshuffleStem,
)
from manas_lite.networks.nets import DerainNet
from manas_lite.networks.space import SearchSpace

CHANNELS = (32, 64, 128, 256)
SMALL = (4, 6, 8)
NORMS = ("batch", "group", "none")


def branches(widths=SMALL, size: int = 8, seed: int = 0) -> list[Tensor]:
    """Branch i at 1/2^i; mixed signs, so that a missing ReLU shows."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, w, size >> i, size >> i, generator=generator, dtype=torch.float64).requires_grad_()
        for i, w in enumerate(widths)
    ]


def assert_equal_modules(ours: nn.Module, theirs: nn.Module, train: bool, *weights: Tensor) -> None:
    """On lists of branches: values, gradients of inputs and weights, and moved statistics agree to 1e-10."""
    ours.double(), theirs.double()
    textbook.randomise(ours)
    textbook.copy_weights(ours, theirs)
    results = []
    for module in (ours, theirs):
        module.train(train)
        x = branches()
        out = module(x, *weights)
        sum((o * torch.linspace(-1, 1, o.numel(), dtype=o.dtype).view_as(o)).sum() for o in out).backward()
        results.append([*out, *(b.grad for b in x), *(p.grad for p in module.parameters()), *module.buffers()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


class OnFirstBranch(nn.Module):
    """A module of one map, as a module of lists."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [self.module(x[0][:, :3]), *x[1:]]


# --- sizes ---


@pytest.mark.parametrize(("count", "size"), [(2, 92_544), (3, 387_968), (4, 1_568_640)])
def test_parallel_module_has_the_published_size(count, size):
    assert count_parameters(ParallelModule(CHANNELS[:count], "batch")) == size
    assert count_parameters(textbook.Parallel(CHANNELS[:count])) == size


@pytest.mark.parametrize(("count", "size"), [(2, 20_672), (3, 153_536), (4, 784_512)])
def test_fusion_module_has_the_published_size(count, size):
    assert count_parameters(FusionModule(CHANNELS[:count], "batch")) == size
    assert count_parameters(textbook.Fusion(CHANNELS[:count])) == size


def test_final_fusion_has_the_published_size():
    assert count_parameters(FusionModule(CHANNELS, "batch", rows=(0,))) == 14_528


def test_parameter_shares_of_the_modules_are_the_published_ones():
    totals = {
        name: sum(count_parameters(module(CHANNELS[:n], "batch")) for n in (2, 3, 4))
        for name, module in ((name, MODULES[name]) for name in PUBLISHED_MODULES)
    }
    assert totals["parallel"] / sum(totals.values()) == pytest.approx(0.68, abs=5e-3)
    assert totals["fusion"] / sum(totals.values()) == pytest.approx(0.32, abs=5e-3)


def test_stem_is_two_bottlenecks_of_width_128():
    stem = BottleneckStem(32, "batch")
    first = 3 * 32 + 9 * 32 * 32 + 32 * 128 + 3 * 128 + 2 * (32 + 32 + 128 + 128)
    second = 128 * 32 + 9 * 32 * 32 + 32 * 128 + 2 * (32 + 32 + 128)
    assert count_parameters(stem) == first + second
    assert stem.width == 128
    assert stem.eval()(torch.rand(1, 3, 5, 7)).shape == (1, 128, 5, 7)


@pytest.mark.parametrize("module", [MODULES[name] for name in PUBLISHED_MODULES])
def test_convolutions_have_a_bias_only_where_no_normalisation_follows(module):
    for norm in NORMS:
        convs = [m for m in module(SMALL, norm).modules() if isinstance(m, nn.Conv2d)]
        assert convs
        assert all((m.bias is not None) == (norm == "none") for m in convs)


# --- values ---


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
class TestAgainstTheTextbook:
    def test_stem(self, train, norm):
        theirs = nn.Sequential(textbook.Bottleneck(3, 4, norm), textbook.Bottleneck(16, 4, norm))
        assert_equal_modules(OnFirstBranch(BottleneckStem(4, norm)), OnFirstBranch(theirs), train)

    def test_transition(self, train, norm):
        after = (8, 6, 8, 10)
        ours, theirs = Transition(SMALL, after, norm), textbook.Transition(SMALL, after, norm)
        assert_equal_modules(ours, theirs, train)

    def test_parallel(self, train, norm):
        assert_equal_modules(ParallelModule(SMALL, norm), textbook.Parallel(SMALL, norm), train)

    def test_fusion(self, train, norm):
        assert_equal_modules(FusionModule(SMALL, norm), textbook.Fusion(SMALL, norm), train)

    def test_final_fusion(self, train, norm):
        ours, theirs = FusionModule(SMALL, norm, rows=(0,)), textbook.Fusion(SMALL, norm, rows=1)
        assert_equal_modules(ours, theirs, train)

    def test_mixed(self, train, norm):
        weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
        ours, theirs = ModuleSlot(list(PUBLISHED_MODULES), SMALL, norm), textbook.Mixed(SMALL, norm)
        assert_equal_modules(ours, theirs, train, weights)


def test_transition_reads_the_lowest_old_branch_as_it_enters():
    """T1's new branch reads the stem's output, not the narrowed branch 0."""
    transition = Transition((16,), (4, 8), "none")
    (stem,) = branches((16,))
    narrowed, new = transition.double()([stem])
    assert narrowed.shape[1] == 4
    assert next(m for m in transition.new.modules() if isinstance(m, nn.Conv2d)).in_channels == 16
    (gradient,) = torch.autograd.grad(new.sum(), stem)
    assert gradient.abs().sum() > 0


def test_transition_passes_a_branch_of_unchanged_width_as_it_is():
    x = branches((4, 6))
    out = Transition((4, 6), (4, 6, 8), "batch").double()(x)
    assert out[0] is x[0]
    assert out[1] is x[1]
    assert out[2].shape[1:] == (8, 2, 2)


def test_unshuffle_stem_sees_each_pixel_of_a_two_by_two_block():
    stem = UnshuffleStem(5, "none").double()
    textbook.randomise(stem)
    image = torch.randn(2, 3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    blocks = torch.stack([image[:, c, i::2, j::2] for c in range(3) for i in range(2) for j in range(2)], 1)
    weight, bias = stem.parameters()
    torch.testing.assert_close(stem(image), F.conv2d(blocks, weight, bias, padding=1))
    assert (stem.width, stem.scale) == (5, 2)


def test_one_hot_weights_choose_one_module():
    slot = ModuleSlot(list(PUBLISHED_MODULES), SMALL, "batch").double().eval()
    x = branches()
    for k, module in enumerate(slot.candidates.values()):
        weights = torch.eye(2, dtype=torch.float64)[k]
        for a, b in zip(slot(x, weights), module(x), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_a_deep_stack_neither_explodes_nor_vanishes(norm):
    """Why residual paths start small without normalisation: a dozen modules keep the scale."""
    torch.manual_seed(0)
    x = [b.detach().float().relu() for b in branches((16, 24), size=16)]
    start = [b.std() for b in x]
    for module in (ParallelModule, FusionModule) * 6:
        x = module((16, 24), norm)(x)
    for before, after in zip(start, x, strict=True):
        assert 0.1 < after.std() / before < 10


# --- erratum 1 ---


class WritesIntoItsInput(ParallelModule):
    """The released parallel module: results are assigned into the caller's list."""

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        for i, out in enumerate(super().forward(x)):
            x[i] = out
        return x


class WritesIntoItsTensors(ParallelModule):
    """The same fault one level down: an in-place ReLU on a branch that others read."""

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return super().forward([branch.relu_() for branch in x])


def assert_leaves_its_input_alone(module: nn.Module) -> None:
    x = [b.detach() for b in branches()]
    same, before = list(x), [b.clone() for b in x]
    out = module.double()(x)
    assert out is not x, "the input list itself came back"
    assert len(x) == len(same), "the input list changed its length"
    assert all(a is b for a, b in zip(x, same, strict=True)), "the input list holds other tensors"
    assert all(torch.equal(a, b) for a, b in zip(x, before, strict=True)), "an input tensor changed"


class WithWeights(nn.Module):
    """A slot under mixture weights, as a module of one argument."""

    def __init__(self, slot: ModuleSlot) -> None:
        super().__init__()
        self.slot = slot

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return self.slot(x, torch.tensor([0.4, 0.6], dtype=torch.float64))


@pytest.mark.parametrize("norm", NORMS)
def test_erratum_01_no_module_mutates_its_input(norm):
    modules = [
        Transition(SMALL, (*SMALL, 10), norm),
        Transition(SMALL, (8, 6, 4, 10), norm),
        ParallelModule(SMALL, norm),
        FusionModule(SMALL, norm),
        FusionModule(SMALL, norm, rows=(0,)),
        WithWeights(ModuleSlot(list(PUBLISHED_MODULES), SMALL, norm)),
        ModuleSlot(["parallel"], SMALL, norm),
    ]
    for module in modules:
        assert_leaves_its_input_alone(module)


@pytest.mark.parametrize("mutant", [WritesIntoItsInput, WritesIntoItsTensors])
def test_erratum_01_the_released_fault_is_caught(mutant, monkeypatch):
    with pytest.raises(AssertionError):
        assert_leaves_its_input_alone(mutant(SMALL, "batch"))
    monkeypatch.setitem(MODULES, "parallel", mutant)  # p P(x) + f F(P(x)) is not the textbook's mixture
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    ours = ModuleSlot(list(PUBLISHED_MODULES), SMALL, "none").double()
    theirs = textbook.Mixed(SMALL, "none").double()
    textbook.copy_weights(ours, theirs)
    with torch.no_grad():
        outs, expected = ours([b.detach() for b in branches()], weights), theirs(branches(), weights)
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(outs, expected, strict=True))


def test_downsampling_path_has_relu_between_and_none_at_the_end():
    """A 1/8 path: three stride-2 convolutions, width kept until the last."""
    path = FusionModule(CHANNELS, "batch").paths["0to3"]
    convs = [m for m in path.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.stride) for m in convs] == [
        (32, 32, (2, 2)),
        (32, 32, (2, 2)),
        (32, 256, (2, 2)),
    ]
    kinds = [type(m).__name__ for m in path.modules() if not list(m.children())]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 2 + ["Conv2d", "BatchNorm2d"]


@pytest.mark.parametrize("genotype", ["all_parallel", "all_fusion", "no_attention"])
def test_no_gradient_dies_without_normalisation(genotype):
    """Light rain first asks for an output of zero; a trunk with a ReLU after its sums went there and stayed."""
    space = SearchSpace((8, 12), 2, stem="unshuffle", norm="none", residual=True)
    net = DerainNet(getattr(Genotype, genotype)(space))
    generator = torch.Generator().manual_seed(0)
    rainy = torch.rand(4, 3, 32, 32, generator=generator)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):  # no rain at all: everything pulls the output to zero
        optimizer.zero_grad()
        (net(rainy + 1e-3) - rainy).abs().mean().backward()
        optimizer.step()
    net.zero_grad()
    (net(rainy) - (rainy - 0.2)).abs().mean().backward()
    assert net.head.weight.grad.abs().max() > 1e-3


def reach_of_start(conv: nn.Conv2d) -> float:
    """The largest starting weight as a share of torch's own bound, 1 / sqrt(inputs of an output)."""
    return float(conv.weight.detach().abs().max()) * (conv.weight[0].numel() ** 0.5)


@pytest.mark.parametrize("norm", NORMS)
def test_residual_paths_start_small_where_nothing_normalises(norm):
    """The last convolution of each path begins at a fifth of its usual scale; all others as torch begins them."""
    torch.manual_seed(0)
    attention = AttentionBlock(16, 2, [["SE"]] * 3, norm)
    parallel, fusion = ParallelModule((16, 24, 32), norm), FusionModule((16, 24, 32), norm)
    paths = [attention.project, *parallel.blocks, *fusion.paths.values(), Bottleneck(16, 16, norm).body]
    for path in paths:
        *inner, last = (part for part in path.modules() if isinstance(part, nn.Conv2d))
        assert all(0.8 < reach_of_start(conv) <= 1 for conv in inner)
        share = 0.2 if norm == "none" else 1.0
        assert 0.8 * share < reach_of_start(last) <= 1.001 * share
