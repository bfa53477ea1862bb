"""Folded networks: equal outputs, no BatchNorm left, fewer operations, the original untouched."""

from collections.abc import Callable

import pytest
import textbook
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from manas_lite.networks.backbone import Backbone
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.networks.space import SearchSpace
from manas_lite.photos.folding import fold

SPACE = SearchSpace((8, 12, 16), 2, allow_none=True)


def network(seed: int | None, norm: str = "batch") -> Backbone:
    space = SearchSpace(SPACE.channels, 2, norm=norm, allow_none=True)
    net = (SuperNet(space) if seed is None else DerainNet(Genotype.random(space, seed))).eval()
    textbook.randomise(net)
    return net


def images() -> Tensor:
    return torch.rand((2, 3, 21, 34), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("seed", [None, *range(6)])
@torch.no_grad()
def test_folded_networks_are_equal(seed):
    net, x = network(seed), images()
    expected = net(x)
    folded = fold(net)
    assert (folded(x) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert torch.equal(net(x), expected), "the original changed"
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    exact = net.double()(x.double())
    torch.testing.assert_close(fold(net)(x.double()), exact, rtol=0, atol=1e-10 * exact.abs().max().item())


def test_training_mode_is_left_as_it_was():
    net = network(0).train()
    assert not fold(net).training
    assert net.training
    assert all(m.training for m in net.modules())


@pytest.mark.parametrize("norm", ["group", "none"])
@torch.no_grad()
def test_other_norms_are_left_alone(norm):
    net, x = network(1, norm), images()
    assert torch.equal(fold(net)(x), net(x))


def dispatches(run: Callable[[], object]) -> int:
    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.calls += 1
            return func(*args, **(kwargs or {}))

    with torch.inference_mode(), Count() as count:
        run()
    return count.calls


def test_one_operation_fewer_for_each_norm():
    net, x = network(2), images()
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    folded = fold(net)
    assert dispatches(lambda: folded(x)) <= dispatches(lambda: net(x)) - norms


def test_a_norm_without_a_convolution_is_refused():
    with pytest.raises(ValueError, match="no convolution stands before the BatchNorm at 1"):
        fold(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)))
