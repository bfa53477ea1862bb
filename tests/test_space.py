"""The search space: published sizes, presets, counts; costs by name held to the networks really built."""

import itertools
from dataclasses import replace

import pytest
import textbook
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from manas_lite.networks.costs import Costs, count_parameters, measure_costs
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.modules import PUBLISHED_MODULES
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.networks.ops import PUBLISHED_OPERATIONS
from manas_lite.networks.space import PRESETS, SearchSpace

PAPER = SearchSpace.preset("paper")
MODULE_SIZES = {"parallel": (92_544, 387_968, 1_568_640), "fusion": (20_672, 153_536, 784_512)}


# --- the published shape ---


def test_paper_has_the_published_shape():
    assert PAPER.channels == (32, 64, 128, 256)
    assert PAPER.cells == (2, 3, 4)
    assert PAPER.module_branches == (2,) * 4 + (3,) * 4 + (4,) * 4
    assert PAPER.block_branch == (0, 1, 0, 1, 2, 0, 1, 2, 3)
    assert PAPER.edge_branch == tuple(branch for branch in PAPER.block_branch for _ in range(3))
    assert PAPER.multiple == 8
    net = SuperNet(PAPER)
    assert tuple(net.alpha.shape) == (12, 2)
    assert tuple(net.beta.shape) == (27, 9)
    assert net.alpha.numel() + net.beta.numel() == 267


def test_count_is_the_published_one():
    assert PAPER.count() == 2**12 * 8**27
    assert SearchSpace.preset("paper", allow_none=True).count() == 2**12 * 9**27


def test_count_equals_an_enumeration():
    space = SearchSpace((4, 6), 1, groups=1, operations=("none", "SE", "CBAM"))
    choices = itertools.product(PUBLISHED_MODULES, *[["SE", "CBAM"]] * 2)
    assert space.count() == len(list(choices)) == 8
    assert replace(space, allow_none=True).count() == 2 * 3**2
    assert replace(space, attention=False).count() == 2


def test_supernet_has_the_published_size():
    theirs = textbook.Network(PAPER.channels, 4, list(PUBLISHED_OPERATIONS))
    weights = sum(p.numel() for p in SuperNet(PAPER).weight_parameters())
    assert weights == count_parameters(theirs)
    assert round(weights / 1e6, 2) == 13.30


@pytest.mark.parametrize(("module", "low", "high"), [("fusion", 4.68, 4.87), ("parallel", 9.04, 9.23)])
def test_derived_network_has_the_published_sizes(module, low, high):
    """From the cheapest edge to the dearest one, all modules alike."""
    sizes = []
    for edge in ("skip_connect", "sep_conv_3x3"):
        genotype = Genotype(PAPER, (module,) * 12, (edge,) * 27)
        sizes.append(round(genotype.cost() / 1e6, 2))
        assert count_parameters(DerainNet(genotype)) == genotype.cost()
    assert sizes == [low, high]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_hashable_and_published_in_shape(name):
    space = SearchSpace.preset(name)
    assert space == SearchSpace.preset(name)
    assert len({space, SearchSpace.preset(name)}) == 1
    assert not space.allow_none
    assert space.operations == PUBLISHED_OPERATIONS


def test_lite_stays_under_a_million_parameters():
    space = SearchSpace.preset("lite")
    assert measure_costs(space).largest < 1e6


def test_preset_takes_changes():
    space = SearchSpace.preset("smoke", norm="group", channels=[4, 6])
    assert (space.norm, space.channels) == ("group", (4, 6))
    assert SearchSpace.preset("smoke").norm != "group"


# --- costs by name ---


def fixed_by_hand(space: SearchSpace) -> int:
    """Parameters of the textbook network without its searched choices."""
    net = textbook.Network(space.channels, space.modules_per_cell, list(PUBLISHED_OPERATIONS), space.norm)
    searched = [m for m in net.modules() if isinstance(m, textbook.Mixed | textbook.Mixture)]
    return count_parameters(net) - sum(count_parameters(m) for m in searched)


def assert_costs_by_name(costs: Costs, space: SearchSpace) -> None:
    for row, branches in zip(costs.modules, space.module_branches, strict=True):
        assert dict(zip(PUBLISHED_MODULES, row.tolist(), strict=True)) == {
            name: sizes[branches - 2] for name, sizes in MODULE_SIZES.items()
        }
    for row, branch in zip(costs.edges, space.edge_branch, strict=True):
        assert dict(zip(costs.operations, row.tolist(), strict=True)) == {
            name: textbook.SIZES[name][branch] for name in costs.operations
        }


def test_costs_are_the_published_sizes_by_name():
    costs = measure_costs(PAPER)
    assert_costs_by_name(costs, PAPER)
    assert costs.fixed == fixed_by_hand(PAPER)
    assert costs.largest == fixed_by_hand(PAPER) + 4 * sum(MODULE_SIZES["parallel"]) + sum(
        textbook.SIZES["sep_conv_3x3"][b] for b in PAPER.edge_branch
    )


def test_erratum_06_costs_go_by_name_in_any_order():
    """A space that lists its operations in another order has the same cost under each name."""
    shuffled = ("SE", "none", "CBAM", "sep_conv_3x3", "SE_A_M", "skip_connect", "dil_conv_3x3")
    space = replace(PAPER, operations=shuffled)
    assert_costs_by_name(measure_costs(space), space)
    genotype = Genotype.random(space, 3)
    assert Genotype(PAPER, genotype.modules, genotype.edges).cost() == genotype.cost()


def test_erratum_06_weights_in_another_order_are_caught():
    costs = measure_costs(PAPER)
    permuted = replace(costs, edges=costs.edges.flip(1))
    with pytest.raises(AssertionError):
        assert_costs_by_name(permuted, PAPER)


def flops_by_hand(net: nn.Module, image: torch.Tensor) -> int:
    """Two for each multiply-add of each convolution that runs."""
    total = 0

    def count(layer: nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal total
        total += 2 * out.numel() * layer.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        net(image)
    for hook in hooks:
        hook.remove()
    return total


VARIANTS = {
    **PRESETS,
    "smoke, published trunk": SearchSpace.preset("smoke", stem="bottleneck", norm="batch", residual=False),
    "smoke, group norm": SearchSpace.preset("smoke", norm="group"),
    "smoke, none allowed": SearchSpace.preset("smoke", allow_none=True),
    "smoke, three groups": SearchSpace.preset("smoke", channels=(6, 12), groups=3),
    "smoke, no attention": SearchSpace.preset("smoke", attention=False),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_cost_of_a_genotype_is_that_of_the_network_built(name):
    space = VARIANTS[name]
    size = (2 * space.multiple, 3 * space.multiple)
    for seed in range(2 if name == "paper" else 4):
        genotype = Genotype.random(space, seed)
        net = DerainNet(genotype).eval()
        assert genotype.cost() == count_parameters(net)
        image = torch.rand(1, 3, *size)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(image)
        assert genotype.cost("flops", size) == counter.get_total_flops() == flops_by_hand(net, image)


def test_dearest_architecture_is_what_largest_says():
    space = SearchSpace((4, 6), 1, groups=1, operations=("skip_connect", "sep_conv_3x3_spatial", "CBAM"))
    for unit in ("parameters", "flops"):
        costs = measure_costs(space, unit, (16, 16))
        everything = itertools.product(PUBLISHED_MODULES, space.operations, space.operations)
        assert costs.largest == max(costs.of((m,), (a, b)) for m, a, b in everything)


def test_flops_grow_with_the_picture_and_parameters_do_not():
    space = SearchSpace.preset("smoke")
    genotype = Genotype.no_attention(space)  # channel gates cost the same on every picture
    assert genotype.cost("flops", (32, 64)) == 4 * genotype.cost("flops", (16, 32)) > 0
    assert genotype.cost("parameters", (32, 64)) == genotype.cost("parameters", (16, 32))


# --- bad input ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": (32,)}, "at least two branches"),
        ({"channels": (32, 33)}, "each must be a positive multiple of groups=2"),
        ({"channels": (0, 32)}, "each must be a positive multiple"),
        ({"channels": (8.0, 16.0)}, r"channels\[0\]: expected int, got float 8.0"),
        ({"channels": 32}, r"channels: expected tuple\[int, ...\], got int 32"),
        ({"modules_per_cell": 0}, "must be at least 1"),
        ({"modules_per_cell": "4"}, "modules_per_cell: expected int, got str '4'"),
        ({"groups": 0}, "must be at least 1"),
        ({"groups": True}, "groups: expected int, got bool True"),
        ({"residual": "no"}, "residual: expected bool, got str 'no'"),
        ({"operations": "SE"}, r"operations: expected tuple\[str, ...\], got str 'SE'"),
        ({"operations": ("SE", "SEA")}, "unknown operations 'SEA': choose among none, skip_connect"),
        ({"operations": ("SE", "SE")}, "a name stands there twice"),
        ({"operations": ("none",)}, "must hold one besides `none`"),
        ({"operations": ()}, "must hold one besides `none`"),
        ({"stem": "patch"}, "unknown stem 'patch': choose among bottleneck, unshuffle"),
        ({"norm": "layer"}, "unknown norm 'layer': choose among batch, group, none"),
        ({"width": 3}, "unknown setting 'width': did you mean .* Valid: channels"),
    ],
)
def test_a_bad_space_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        SearchSpace.preset("paper", **changes)


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown preset 'tiny': choose one of paper, lite, teach, smoke"):
        SearchSpace.preset("tiny")


def test_a_lone_none_is_a_space_when_allowed():
    assert SearchSpace(operations=("none",), allow_none=True).choices == ("none",)


def test_bad_cost_questions_are_refused():
    with pytest.raises(ValueError, match="unknown unit 'seconds': choose one of parameters, flops"):
        measure_costs(PAPER, "seconds")
    with pytest.raises(ValueError, match=r"size \(100, 64\): both sides must be multiples of 8"):
        measure_costs(PAPER, "flops", (100, 64))
