"""The network and its two fillings: against the textbook network and each other, any size, every part."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import textbook
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from manas_lite.networks import backbone
from manas_lite.networks.backbone import Backbone, pad_to_multiple
from manas_lite.networks.costs import count_parameters
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.modules import PUBLISHED_MODULES, ParallelModule
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.networks.ops import PUBLISHED_OPERATIONS
from manas_lite.networks.space import PRESETS, SearchSpace

NAMES = list(PUBLISHED_OPERATIONS)
PUBLISHED = SearchSpace((16, 32, 48), 2)  # the published trunk, three branches, small
SMOKE = SearchSpace.preset("smoke")
SPACES = {
    "published": replace(PUBLISHED, channels=(8, 12, 16)),
    "none allowed": replace(PUBLISHED, channels=(8, 12, 16), allow_none=True),
    "smoke": SMOKE,
    "group": replace(SMOKE, norm="group", allow_none=True),
    "three groups": SearchSpace((6, 12), 1, groups=3),
    "no attention": replace(SMOKE, attention=False),
}


def images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@torch.no_grad()
def choose(net: SuperNet, genotype: Genotype) -> None:
    """Set logits so far apart that their softmax is exactly one-hot."""
    for logits, names, order in (
        (net.alpha, genotype.modules, list(PUBLISHED_MODULES)),
        (net.beta, genotype.edges, list(genotype.space.operations)),
    ):
        logits.zero_()
        for row, name in enumerate(names):
            logits[row, order.index(name)] = 200.0


# --- the published network ---


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_supernet_equals_the_textbook_network(train, norm):
    """Values and gradients of everything, to 1e-10 in float64; logits away from uniform."""
    space = replace(PUBLISHED, norm=norm)
    ours = SuperNet(space).double()
    textbook.randomise(ours)
    theirs = textbook.Network(space.channels, space.modules_per_cell, NAMES, norm).double()
    textbook.copy_weights(ours, theirs, but=("alpha", "beta"))
    alpha, beta = (p.detach().clone().requires_grad_() for p in (ours.alpha, ours.beta))
    ours.train(train), theirs.train(train)
    x = images(2, 3, 12, 8, dtype=torch.float64)
    out, expected = ours(x), theirs(x, torch.softmax(alpha, 1), torch.softmax(beta, 1))
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    target = images(2, 3, 12, 8, seed=1, dtype=torch.float64)
    ((out - target) ** 2).sum().backward()
    ((expected - target) ** 2).sum().backward()
    scale = max(p.grad.abs().max() for p in theirs.parameters())
    pairs = [(ours.alpha, alpha), (ours.beta, beta)]
    pairs += zip(ours.weight_parameters(), theirs.parameters(), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-12 * scale.item())


def test_output_is_not_clamped_and_keeps_the_shape():
    net = SuperNet(PUBLISHED)
    nn.init.constant_(net.head.weight, 10.0)
    out = net(images(2, 3, 8, 8))
    assert out.shape == (2, 3, 8, 8)
    assert out.max() > 1


@pytest.mark.parametrize("stem", ["bottleneck", "unshuffle"])
def test_residual_predicts_the_rain_layer(stem):
    """Same weights: output = input - the direct network's output; and training starts at the identity."""
    direct = DerainNet(Genotype.hand_made(replace(SMOKE, stem=stem, residual=False)))
    residual = DerainNet(Genotype.hand_made(replace(SMOKE, stem=stem, residual=True)))
    x = images(2, 3, 9, 10)
    assert torch.equal(residual(x), x)
    residual.load_state_dict(direct.state_dict())
    torch.testing.assert_close(residual(x), x - direct(x))
    assert direct(x).abs().max() > 0


def test_unshuffle_stem_works_at_half_resolution():
    seen: list[tuple[int, ...]] = []
    for stem, sides in (("bottleneck", (16, 24)), ("unshuffle", (8, 12))):
        net = DerainNet(Genotype.hand_made(replace(SMOKE, stem=stem)))
        net.cells[0].slots[0].register_forward_pre_hook(lambda _, args: seen.append(args[0][0].shape[2:]))
        assert net(images(1, 3, 16, 24)).shape == (1, 3, 16, 24)
        assert tuple(seen[-1]) == sides


def test_a_head_of_three_pixels_reads_its_neighbours():
    """With only its middle weight it is the 1x1 head; with another, it is that head's output moved by one pixel."""
    one = DerainNet(Genotype.hand_made(replace(SMOKE, stem="bottleneck", residual=False)))
    three = DerainNet(Genotype.hand_made(replace(SMOKE, stem="bottleneck", residual=False, head=3)))
    x, weights = images(1, 3, 8, 8), one.state_dict()
    expected = one(x)
    for row, column in ((1, 1), (1, 0), (2, 1)):
        kernel = torch.zeros_like(three.head.weight)
        kernel[:, :, row, column] = one.head.weight[:, :, 0, 0].detach()
        three.load_state_dict(weights | {"head.weight": kernel})
        moved = torch.roll(expected, (1 - row, 1 - column), (2, 3))
        torch.testing.assert_close(three(x)[..., 1:-1, 1:-1], moved[..., 1:-1, 1:-1])
    with pytest.raises(ValueError, match="head is 5"):
        replace(SMOKE, head=5)


def test_without_attention_there_is_none():
    net = SuperNet(replace(SMOKE, attention=False))
    assert net.beta.shape == (0, 9)
    assert not any("attention" in name for name, _ in net.named_parameters())
    net(images(1, 3, 8, 8)).sum().backward()


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 4, 8, 8), (1, 3, 3, 8, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected images of shape \(B, 3, H, W\), got"):
        SuperNet(SMOKE)(torch.rand(shape))


# --- any size ---


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 4, 8, 16]))
@settings(max_examples=80, deadline=None)
def test_padding_is_numpys_reflection_or_repetition(height, width, multiple):
    x = images(1, 2, height, width)
    down, right = -height % multiple, -width % multiple
    expected = x.numpy()
    for axis, side, extra in ((3, width, right), (2, height, down)):
        pads = [(0, extra if a == axis else 0) for a in range(4)]
        expected = np.pad(expected, pads, mode="reflect" if extra < side else "edge")
    np.testing.assert_array_equal(pad_to_multiple(x, multiple).numpy(), expected)


def test_padding_leaves_a_multiple_as_it_is():
    x = images(1, 3, 16, 24)
    assert pad_to_multiple(x, 8) is x


@pytest.fixture(scope="module")
def tiny_nets() -> dict[tuple[str, str], Backbone]:
    nets = {}
    for stem, norm in product(["bottleneck", "unshuffle"], ["batch", "group", "none"]):
        space = SearchSpace((4, 6, 8, 10), 1, stem=stem, norm=norm, residual=stem == "unshuffle")
        net = SuperNet(space).double().eval()
        textbook.randomise(net)
        nets[stem, norm] = net
    return nets


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    stem=st.sampled_from(["bottleneck", "unshuffle"]),
    norm=st.sampled_from(["batch", "group", "none"]),
)
@settings(max_examples=40, deadline=None)
def test_any_size_is_the_padded_picture_cut_back(tiny_nets, height, width, stem, norm):
    net = tiny_nets[stem, norm]
    x = images(1, 3, height, width, dtype=torch.float64)
    with torch.no_grad():
        out = net(x)
        whole = net(pad_to_multiple(x, net.space.multiple))
    assert out.shape == x.shape
    assert out.isfinite().all()
    torch.testing.assert_close(out, whole[..., :height, :width], rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (2, 3), (7, 9), (8, 8), (15, 17)])
@pytest.mark.parametrize(("stem", "norm"), [*product(["bottleneck", "unshuffle"], ["batch", "group", "none"])])
def test_the_smallest_and_odd_sizes(tiny_nets, stem, norm, size):
    x = images(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        out = tiny_nets[stem, norm](x)
    assert out.shape == x.shape
    assert out.isfinite().all()


def test_nothing_is_padded_on_multiples(monkeypatch):
    net = SuperNet(SMOKE).eval()
    textbook.randomise(net)
    x = images(1, 3, 2 * SMOKE.multiple, 3 * SMOKE.multiple)
    out = net(x)
    monkeypatch.setattr(backbone, "pad_to_multiple", lambda image, multiple: image)
    assert torch.equal(net(x), out)


def test_local_pooling_of_a_covering_window_changes_nothing():
    for stem in ("bottleneck", "unshuffle"):
        space = SearchSpace((4, 6, 8), 1, stem=stem)
        net = SuperNet(space).double().eval()
        textbook.randomise(net)
        x = images(1, 3, 24, 16, dtype=torch.float64)
        globally = net(x)
        net.pool_locally(24)
        assert [[b.window for b in cell.attention] for cell in net.cells] == [
            [24 // space.scale // 2**i for i in range(n)] for n in space.cells
        ]
        torch.testing.assert_close(net(x), globally, rtol=0, atol=1e-10)
        net.pool_locally(8)
        assert (net(x) - globally).abs().max() > 1e-4
        net.pool_locally(1)
        assert net(x).isfinite().all()
        net.pool_locally(None)
        assert torch.equal(net(x), globally)


@pytest.mark.parametrize("window", [0, -8])
def test_a_window_below_one_pixel_is_refused(window):
    with pytest.raises(ValueError, match=f"window is {window}: give a number of pixels"):
        SuperNet(SMOKE).pool_locally(window)


# --- erratum 2: the rows used in the forward pass ---


def assert_rows_are_mixtures(net: SuperNet) -> None:
    """Every searched place was run with weights that are not negative and sum to 1."""
    used: list[Tensor] = []
    places = [m for m in net.modules() if type(m).__name__ in ("ModuleSlot", "EdgeSlot")]
    assert len(places) == len(net.alpha) + len(net.beta)
    hooks = [p.register_forward_pre_hook(lambda _, a: used.append(torch.stack(list(a[1])))) for p in places]
    net(images(1, 3, 8, 8))
    for hook in hooks:
        hook.remove()
    assert len(used) == len(places)
    for row in used:
        assert (row >= 0).all(), "a weight is negative"
        torch.testing.assert_close(row.sum(), torch.ones(()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("spread", [1e-3, 1.0, 200.0])
def test_erratum_02_rows_used_in_the_forward_pass_sum_to_one(spread):
    net = SuperNet(PUBLISHED)
    for logits in net.arch_parameters():
        logits.data = spread * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    assert_rows_are_mixtures(net)


def test_erratum_02_raw_beta_is_caught(monkeypatch):
    monkeypatch.setattr(SuperNet, "weights", lambda net: (torch.softmax(net.alpha, 1), net.beta))
    with pytest.raises(AssertionError):
        assert_rows_are_mixtures(SuperNet(PUBLISHED))


# --- erratum 3: supernet and derived network ---


@torch.no_grad()
def gap(net: SuperNet, genotype: Genotype, derived: DerainNet, train: bool = False) -> float:
    """Largest difference between the one-hot supernet and the derived network that inherited its weights."""
    choose(net, genotype)
    derived.inherit(net)
    net.train(train), derived.train(train)
    x = images(2, 3, 16, 8)
    expected = net(x)
    return float((expected - derived(x)).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", SPACES)
def test_erratum_03_one_hot_supernet_equals_the_derived_network(name):
    """Over random genotypes, 48 in all, in eval mode and on batch statistics."""
    space = SPACES[name]
    net = SuperNet(space)
    textbook.randomise(net)
    for seed in range(8):
        genotype = Genotype.random(space, seed)
        for train in (False, True):
            state = {key: value.clone() for key, value in net.state_dict().items()}
            assert gap(net, genotype, DerainNet(genotype, seed=seed + 1), train) < 1e-5
            net.load_state_dict(state)  # train mode moved the statistics
        choose(net, genotype)
        assert net.derive() == genotype


def test_erratum_03_none_was_among_the_derived_edges():
    drawn = [Genotype.random(SPACES["none allowed"], seed).edges for seed in range(8)]
    assert sum("none" in edges for edges in drawn) >= 4


def one_block_a_stage(genotype: Genotype) -> Genotype:
    """The released indexing: every block of cell s takes rows 3s, 3s+1, 3s+2."""
    edges: list[str] = []
    for stage, branches in enumerate(genotype.space.cells):
        edges += genotype.edges[3 * stage : 3 * stage + 3] * branches
    return Genotype(genotype.space, genotype.modules, tuple(edges))


def test_erratum_03_indexing_by_stage_is_caught():
    space = SPACES["published"]
    net = SuperNet(space)
    textbook.randomise(net)
    caught = 0
    for seed in range(5):
        genotype = Genotype.random(space, seed)
        wrong = one_block_a_stage(genotype)
        assert len(wrong.edges) == len(genotype.edges)
        caught += gap(net, genotype, DerainNet(wrong)) > 1e-3
    assert caught == 5


def test_erratum_03_each_block_reads_its_own_rows():
    """Changing one row of beta changes the output of its block and of no block before it."""
    net = SuperNet(PUBLISHED).eval()
    textbook.randomise(net)
    blocks = [block for cell in net.cells for block in cell.attention]
    outputs: list[Tensor] = []
    for block in blocks:
        block.register_forward_hook(lambda _, __, out: outputs.append(out))
    x = images(1, 3, 8, 8)
    with torch.no_grad():
        net(x)
        before, outputs[:] = list(outputs), []
        for row in range(len(net.beta)):
            kept = net.beta[row].clone()
            net.beta[row] = torch.linspace(-3, 3, 9)
            net(x)
            net.beta[row] = kept
            first = next(i for i, (a, b) in enumerate(zip(before, outputs, strict=True)) if not torch.equal(a, b))
            assert first == row // 3
            outputs.clear()


# --- erratum 4: every parameter takes part ---


def assert_every_parameter_gets_a_gradient(net: Backbone, size: int, draws: int = 30) -> None:
    """In some draw of the weights: a ReLU that is shut in one draw is no fault of the network."""
    waiting = {name: p for name, p in net.named_parameters() if p.numel()}  # without attention, beta is empty
    for seed in range(draws):
        textbook.randomise(net, seed)
        net.eval()  # a scale before batch statistics has gradient zero by its nature
        net.zero_grad(set_to_none=True)
        (net(images(2, 3, size, size, seed=seed)) ** 2).mean().backward()
        missing = [name for name, p in net.named_parameters() if p.grad is None and p.numel()]
        assert not missing, f"no gradient reaches {missing}"
        waiting = {name: p for name, p in waiting.items() if not p.grad.any()}
        if not waiting:
            return
    raise AssertionError(f"the gradient is zero in {sorted(waiting)}")


@pytest.mark.parametrize("name", [*PRESETS, *SPACES])
def test_erratum_04_every_parameter_of_the_supernet_gets_a_gradient(name):
    space = {**PRESETS, **SPACES}[name]
    assert_every_parameter_gets_a_gradient(SuperNet(space), space.multiple * 2)


@pytest.mark.parametrize("name", [*PRESETS, *SPACES])
def test_erratum_04_every_parameter_of_a_derived_network_gets_a_gradient(name):
    space = replace({**PRESETS, **SPACES}[name], allow_none=False)  # behind a cut edge there is nothing to learn
    for seed in range(1 if name == "paper" else 4):
        net = DerainNet(Genotype.random(space, seed))
        assert_every_parameter_gets_a_gradient(net, space.multiple * 2)


def test_erratum_04_modules_that_nobody_runs_are_caught():
    net = SuperNet(SPACES["published"])
    net.cells[1].extra = ParallelModule((8, 12, 16), "batch")
    with pytest.raises(AssertionError, match=r"no gradient reaches \['cells.1.extra"):
        assert_every_parameter_gets_a_gradient(net, 16)


def test_residual_network_wakes_up_after_one_step():
    """The head starts at zero: first it alone learns, from the second step on everything does."""
    net = SuperNet(SMOKE)
    x, clean = images(2, 3, 16, 16), images(2, 3, 16, 16, seed=1)
    optimizer = torch.optim.SGD(net.weight_parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        ((net(x) - clean) ** 2).mean().backward()
        moving = {name for name, p in net.named_parameters() if p.grad.any()}
        assert (moving == {"head.weight"}) == (step == 0)
        optimizer.step()
    assert {"alpha", "beta"} <= moving


# --- erratum 11: only what was chosen ---


@pytest.mark.parametrize("name", SPACES)
def test_erratum_11_only_chosen_operations_are_built(name):
    space = SPACES[name]
    genotype = Genotype.random(space, 1)
    net = DerainNet(genotype)
    slots = [list(m.candidates) for m in net.modules() if type(m).__name__ == "ModuleSlot"]
    edges = [list(m.candidates) for m in net.modules() if type(m).__name__ == "EdgeSlot"]
    assert slots == [[name] for name in genotype.modules]
    assert edges == [[name] for name in genotype.edges]
    assert "alpha" not in net.state_dict()
    assert "beta" not in net.state_dict()


def test_erratum_11_building_all_nine_inflates_the_published_size():
    space = SearchSpace.preset("paper")
    for seed in range(3):
        genotype = Genotype.random(space, seed)
        bloated = Backbone(space, [(m,) for m in genotype.modules], [space.operations] * 27)
        assert count_parameters(DerainNet(genotype)) == genotype.cost()
        assert 0.2e6 < count_parameters(bloated) - genotype.cost() < 0.4e6


# --- erratum 13: alpha and beta ---


@pytest.mark.parametrize("name", SPACES)
def test_erratum_13_architecture_parameters_are_parameters(name):
    net = SuperNet(SPACES[name])
    for logits in ("alpha", "beta"):
        assert isinstance(getattr(net, logits), nn.Parameter)
        assert logits in net.state_dict()
    other = SuperNet(SPACES[name], seed=5)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.alpha, net.alpha)
    assert torch.equal(other.beta, net.beta)
    assert net.to(torch.float64).alpha.dtype == torch.float64
    assert net.to("meta").beta.device.type == "meta"


@pytest.mark.parametrize("name", SPACES)
def test_erratum_13_parameter_groups_are_disjoint_and_complete(name):
    net = SuperNet(SPACES[name])
    arch, weights = net.arch_parameters(), net.weight_parameters()
    ids = [id(p) for p in (*arch, *weights)]
    assert len(set(ids)) == len(ids)
    assert set(ids) == {id(p) for p in net.parameters()}
    assert [id(p) for p in arch] == [id(net.alpha), id(net.beta)]
    order = [id(p) for _, p in net.named_parameters() if id(p) not in ids[:2]]
    assert [id(p) for p in weights] == order  # a list, always in the same order


def test_logits_start_small_and_normal():
    net = SuperNet(SearchSpace.preset("paper"))
    values = torch.cat([net.alpha.flatten(), net.beta.flatten()]) / 1e-3
    assert abs(values.mean()) < 4 / 267**0.5
    assert values.std().item() == pytest.approx(1, abs=0.2)


# --- seeds and inheritance ---


def equal_states(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_equal_genotypes_build_equal_networks():
    genotype = Genotype.random(SMOKE, 0)
    again = Genotype.from_json(genotype.to_json())
    torch.manual_seed(1)
    a = DerainNet(genotype)
    torch.manual_seed(2)
    b = DerainNet(again)
    assert equal_states(a, b)
    assert a.genotype == b.genotype
    b.load_state_dict(a.state_dict())
    textbook.randomise(a), textbook.randomise(b)
    assert torch.equal(a(images(1, 3, 9, 7)), b(images(1, 3, 9, 7)))


def test_the_seed_decides_the_weights_and_the_arch_seed_the_logits():
    def supernet(**seeds: int) -> SuperNet:
        return SuperNet(SMOKE, **seeds)

    assert equal_states(supernet(), supernet(seed=0))
    assert not torch.equal(supernet(seed=0).stem[1][0].weight, supernet(seed=1).stem[1][0].weight)
    assert not torch.equal(supernet(seed=0).alpha, supernet(seed=1).alpha)
    a, b = supernet(seed=3, arch_seed=1), supernet(seed=3, arch_seed=2)
    assert not torch.equal(a.beta, b.beta)
    assert all(torch.equal(p, q) for p, q in zip(a.weight_parameters(), b.weight_parameters(), strict=True))
    assert torch.equal(supernet(seed=4, arch_seed=1).beta, a.beta)


@pytest.mark.parametrize("build", [SuperNet, lambda space: DerainNet(Genotype.hand_made(space))])
def test_building_and_running_leave_the_global_random_state_alone(build: Callable):
    before = torch.random.get_rng_state()
    build(SMOKE)(images(1, 3, 8, 8))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_inherited_weights_are_copies():
    supernet, genotype = SuperNet(SMOKE), Genotype.random(SMOKE, 0)
    net = DerainNet(genotype, seed=9)
    assert net.inherit(supernet) is net
    theirs = supernet.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in net.state_dict().items())
    textbook.randomise(net)
    assert not any(torch.equal(p, theirs[key]) for key, p in net.named_parameters() if p.numel() > 1)


def test_inheriting_from_another_space_is_refused():
    net = DerainNet(Genotype.hand_made(SMOKE))
    with pytest.raises(ValueError, match="the supernet is of another space"):
        net.inherit(SuperNet(replace(SMOKE, residual=False)))


def test_derived_names_are_names_of_the_supernet():
    names = set(SuperNet(PUBLISHED).state_dict())
    assert set(DerainNet(Genotype.random(PUBLISHED, 0)).state_dict()) < names
