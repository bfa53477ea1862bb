"""Folded networks: equal outputs, no BatchNorm left, fewer operations, the original untouched."""

import copy
import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import textbook
import tiny
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from manas_lite.compute.runtime import Compute
from manas_lite.networks.backbone import Backbone
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.networks.space import SearchSpace
from manas_lite.photos import inference
from manas_lite.photos.folders import derain_folder
from manas_lite.photos.folding import fold
from manas_lite.photos.images import read_image, write_image
from manas_lite.photos.inference import derain
from manas_lite.photos.video import derain_video
from manas_lite.training.evaluation import evaluate

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


# --- one folding serves many pictures ---


@pytest.fixture
def foldings(monkeypatch) -> list[nn.Module]:
    """The networks that were folded, one entry per time."""
    calls: list[nn.Module] = []

    def counted(net: nn.Module) -> nn.Module:
        calls.append(net)
        return fold(net)

    monkeypatch.setattr(inference, "fold", counted)
    return calls


def test_calls_and_folders_share_one_folding(foldings, tmp_path):
    net, picture = network(3), tiny.picture(0)
    (tmp_path / "in").mkdir()
    for name in "abcd":
        write_image(tmp_path / "in" / f"{name}.png", picture)
    first = derain(picture, net, compute=tiny.COMPUTE)
    assert np.array_equal(derain(picture, net, compute=tiny.COMPUTE), first)
    inference.seconds_per_pixel(net, tiny.COMPUTE, side=16)
    derain_folder(tmp_path / "in", tmp_path / "out", net, compute=tiny.COMPUTE, say=lambda _: None)
    assert np.array_equal(read_image(tmp_path / "out" / "d.png"), first)
    assert len(foldings) == 1


def test_the_frames_of_a_video_share_one_folding(foldings, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="videos need the extra: pip install 'manas_lite[video]'")
    writer = ffmpeg.write_frames(str(tmp_path / "in.mp4"), (48, 32), fps=10, macro_block_size=1)
    writer.send(None)
    for level in range(0, 100, 20):
        writer.send(np.full((32, 48, 3), level, np.uint8))
    writer.close()
    derain_video(tmp_path / "in.mp4", network(3), tmp_path / "out.mp4", compute=tiny.COMPUTE, say=lambda _: None)
    assert len(foldings) == 1


def tenfold(net: Backbone) -> None:
    with torch.no_grad():
        net.head.weight.mul_(10)


def tenfold_without_a_trace(net: Backbone) -> None:
    net.head.weight.data.mul_(10)  # the version counter of the parameter stays as it is


def tenfold_through_numpy(net: Backbone) -> None:
    weight = net.head.weight.detach().numpy()
    weight *= 10


def other_parameter(net: Backbone) -> None:
    net.head.weight = nn.Parameter(net.head.weight.detach() * 10)


def other_state(net: Backbone) -> None:
    net.load_state_dict({name: value * 10 for name, value in net.state_dict().items()})


def other_layer(net: Backbone) -> None:
    net.head = nn.Conv2d(*net.head.weight.shape[1::-1], net.head.kernel_size)


def other_statistics(net: Backbone) -> None:
    next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d)).running_var.mul_(10)


def other_window(net: Backbone) -> None:
    net.pool_locally(4)


def hook(net: Backbone) -> None:
    net.head.register_forward_hook(lambda module, inputs, output: output * 10)


CHANGES = [
    tenfold, tenfold_without_a_trace, tenfold_through_numpy, other_parameter, other_state, other_layer,
    other_statistics, other_window, hook,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_network_is_folded_anew(change, foldings):
    """The oracle is a copy that nobody has derained with."""
    net, picture = network(3), tiny.picture(0)
    before = derain(picture, net, compute=tiny.COMPUTE)
    change(net)
    after = derain(picture, net, compute=tiny.COMPUTE)
    assert not np.array_equal(after, before)
    assert np.array_equal(after, derain(picture, copy.deepcopy(net), compute=tiny.COMPUTE))
    derain(picture, net, compute=tiny.COMPUTE)
    assert foldings.count(net) == 2


def test_an_evaluation_by_windows_leaves_the_shared_copy_alone(tmp_path):
    net, scenes = network(3), tiny.tiny_split(tmp_path).test
    before = derain(tiny.picture(0), net, compute=tiny.COMPUTE)
    whole = evaluate(net, scenes, measures=["psnr"], compute=tiny.COMPUTE).means()
    assert evaluate(net, scenes, measures=["psnr"], compute=tiny.COMPUTE, window=4).means() != whole
    assert np.array_equal(derain(tiny.picture(0), net, compute=tiny.COMPUTE), before)


def test_a_network_that_goes_takes_its_copy_along():
    net = network(3)
    copied = weakref.ref(inference.borrowed(net, Compute(tiny.COMPUTE)))
    assert copied() is not None
    del net
    gc.collect()
    assert copied() is None
