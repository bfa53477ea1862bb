"""Tiles: the whole picture's result with carried statistics, another one without, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import textbook
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from manas_lite.compute.allocations import AllocationPeak
from manas_lite.compute.footprint import bytes_per_pixel
from manas_lite.compute.runtime import ComputeSettings
from manas_lite.networks.backbone import Backbone
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.networks.ops import OPERATIONS, Gate
from manas_lite.networks.space import SearchSpace
from manas_lite.photos import inference
from manas_lite.photos.inference import derain
from manas_lite.photos.tiling import derain_tiled

PUBLISHED = SearchSpace((8, 12, 16, 20), 2)
SPACES = {
    "published": PUBLISHED,
    "half resolution, residual": replace(PUBLISHED, stem="unshuffle", norm="none", residual=True),
    "3x3 head": replace(PUBLISHED, stem="unshuffle", norm="none", head=3),
    "three groups": SearchSpace((6, 12), 1, groups=3, norm="none"),
    "no attention": SearchSpace((4, 8), 1, attention=False),
}


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(space: SearchSpace, seed: int | None = 0) -> Backbone:
    net = SuperNet(space) if seed is None else DerainNet(Genotype.random(space, seed))
    net = net.double().eval()
    textbook.randomise(net)
    return net


@torch.no_grad()
def largest_gap(net: Backbone, x: Tensor, **options) -> float:
    whole = net(x)
    tiled = derain_tiled(net, x, **options)
    assert tiled.shape == whole.shape
    return float((tiled - whole).abs().max() / whole.abs().max())


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", [0, 1, None], ids=["genotype 0", "genotype 1", "supernet"])
def test_tiles_equal_the_whole_picture(name, seed):
    """Every tile border runs through the picture somewhere; sizes that are no multiples of anything."""
    net = network(SPACES[name], seed)
    assert largest_gap(net, images(1, 3, 75, 53), tile=2 * net.space.multiple) < 1e-10


@pytest.mark.parametrize("edge", SearchSpace().operations)
def test_every_operation_is_carried(edge):
    space = SearchSpace((8, 12), 1, norm="none", allow_none=True)
    net = DerainNet(Genotype(space, ("parallel",), (edge,) * 6)).double().eval()
    textbook.randomise(net)
    assert largest_gap(net, images(1, 3, 70, 66), tile=16) < 1e-10


@given(height=st.integers(1, 90), width=st.integers(1, 90), tile=st.integers(1, 6), seed=st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_any_size_and_tile(height, width, tile, seed):
    space = SearchSpace((4, 6, 8), 1, stem="unshuffle" if seed % 2 else "bottleneck")
    net = network(space, seed)
    assert largest_gap(net, images(2, 3, height, width), tile=tile * space.multiple) < 1e-10


def test_local_pooling_is_tiled_too():
    net = network(SearchSpace((8, 12), 1), 3)
    net.pool_locally(8)
    assert largest_gap(net, images(1, 3, 150, 40), tile=16) < 1e-10


class Far(Gate):
    """Looks 40 pixels to the left."""

    needs, extent, reach = frozenset({"profile"}), 2, 40

    def gate(self, x, seen):
        profile = seen.profile[:, :1]
        return torch.sigmoid(8 * F.pad(profile, (40, 0))[..., : profile.shape[3]] - 4)


@pytest.mark.parametrize("window", [None, 8, 16])
def test_tiles_see_what_the_furthest_gate_sees(window, monkeypatch):
    monkeypatch.setitem(OPERATIONS, "far", Far)
    space = SearchSpace.preset("smoke", operations=("skip_connect", "far"))
    genotype = Genotype(space, ("parallel",) * len(space.module_branches), ("far",) * len(space.edge_branch))
    net = DerainNet(genotype).double().eval()
    textbook.randomise(net)
    net.pool_locally(window)
    assert largest_gap(net, images(1, 3, 120, 300), tile=32) < 1e-10


def test_single_precision_stays_within_the_promise():
    net = network(PUBLISHED).float()
    assert largest_gap(net, images(1, 3, 96, 80).float(), tile=32) < 1e-4


def test_tiles_on_their_own_are_another_function():
    net = network(PUBLISHED)
    x = images(1, 3, 96, 80)
    assert largest_gap(net, x, tile=32, carry=False) > 1e-3
    assert largest_gap(net, x, tile=96, carry=False) < 1e-10  # one tile


def test_without_gates_that_pool_only_the_margin_matters():
    """Then independent tiles agree with the whole picture: the difference above is the pooling's."""
    space = SearchSpace((4, 8), 1, attention=False)
    assert largest_gap(network(space), images(1, 3, 96, 80), tile=32, carry=False) < 1e-10


def test_channels_last_stays():
    net = network(SearchSpace((4, 8), 1)).to(memory_format=torch.channels_last)
    x = images(1, 3, 40, 40).contiguous(memory_format=torch.channels_last)
    assert largest_gap(net, x, tile=16) < 1e-10


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (SearchSpace((8, 12), 1, norm="group"), {"tile": 16}, "group normalisation"),
        (SearchSpace((8, 12), 1), {"tile": 15}, "tile is 15: give a multiple of 2"),
        (SearchSpace((8, 12), 1), {"tile": 0}, "tile is 0"),
    ],
)
def test_what_cannot_be_tiled_is_refused(space, options, message):
    with pytest.raises(ValueError, match=message):
        derain_tiled(network(space), images(1, 3, 32, 32), **options)


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"net\.eval"):
        derain_tiled(network(PUBLISHED).train(), images(1, 3, 32, 32))


# --- deraining chooses tiles by itself ---


@pytest.fixture
def tiled_calls(monkeypatch) -> list[tuple[int, ...]]:
    calls: list[tuple[int, ...]] = []

    def spy(net: Backbone, rainy: Tensor) -> Tensor:
        calls.append(tuple(rainy.shape))
        return derain_tiled(net, rainy, tile=16)

    monkeypatch.setattr(inference, "derain_tiled", spy)
    monkeypatch.setattr(inference, "SMALL", 0)
    return calls


def test_large_pictures_are_tiled_and_small_ones_are_not(tiled_calls):
    space = SearchSpace((4, 8), 1, residual=True)
    net = network(space).float()
    picture = np.uint8(255 * images(70, 50, 3).numpy())
    whole = derain(picture, net, compute=ComputeSettings(device="cpu", threads=1))
    assert tiled_calls == []
    gib = 0.5 * bytes_per_pixel(net.genotype) * 70 * 50 / 2**30
    tiled = derain(picture, net, compute=ComputeSettings(device="cpu", threads=1, picture_gib=gib))
    assert tiled_calls == [(1, 3, 70, 50)]
    assert np.abs(tiled.astype(int) - whole).max() <= 1


def test_group_normalisation_stays_whole(tiled_calls):
    net = network(SearchSpace((8, 12), 1, norm="group")).float()
    derain(np.zeros((40, 40, 3), np.uint8), net, compute=ComputeSettings(device="cpu", picture_gib=1e-6))
    assert tiled_calls == []


def test_no_budget_is_refused():
    with pytest.raises(ValueError, match="picture_gib is 0"):
        ComputeSettings(picture_gib=0.0)


def test_tiles_hold_a_fraction_of_the_whole():
    """Bytes alive at once, counted; the stem's wide maps exist for a tile only."""
    net = network(SearchSpace((16, 24), 1)).float()
    x = images(1, 3, 256, 320).float()
    peaks = []
    for run in (lambda: net(x), lambda: derain_tiled(net, x, tile=64)):
        with torch.inference_mode(), AllocationPeak() as count:
            run()
        peaks.append(count.peak)
    assert peaks[1] < 0.6 * peaks[0]
