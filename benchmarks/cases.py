"""The things that are compared: a search step, a retraining step, a picture, the loss; textbook against kit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manas_lite.compute.runtime import Compute, ComputeSettings
from manas_lite.losses import DerainLoss
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.networks.space import SearchSpace
from manas_lite.photos.folding import fold
from manas_lite.photos.tiling import derain_tiled

from . import kit, textbook

PAPER = SearchSpace()


@dataclass(frozen=True)
class Size:
    """A space and a batch: `batch` scenes x `rains` versions of `patch` x `patch` pixels."""

    space: SearchSpace = PAPER
    batch: int = 4
    rains: int = 3
    patch: int = 64

    def batches(self, device: torch.device, count: int) -> list[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch, self.rains, 3, self.patch, self.patch)
        clean = [torch.rand(shape[:1] + shape[2:], generator=generator) for _ in range(count)]
        rainy = [(c.unsqueeze(1) + 0.2 * torch.rand(shape, generator=generator)).clamp(0, 1) for c in clean]
        return [(r.to(device), c.to(device)) for r, c in zip(rainy, clean, strict=True)]


def compute(precision: str = "fp32", *, search: bool = False) -> Compute:
    """The device of this run, at the threads that are set, with the processes that were launched."""
    settings = ComputeSettings(precision=precision, threads=torch.get_num_threads())  # type: ignore[arg-type]
    return Compute(settings, search=search, together=True)


# --- steps: each function makes a network and returns what one step is ---


def search_textbook(size: Size) -> Callable[[], Any]:
    runtime = compute()
    net = kit.twin(SuperNet(size.space).train()).to(runtime.device)
    weights = [p for name, p in net.named_parameters() if name not in ("alpha", "beta")]
    sgd = torch.optim.SGD(weights, 2e-3, 0.9, weight_decay=3e-4)
    adam = torch.optim.Adam([net.alpha, net.beta], 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    train, val = size.batches(runtime.device, 2)
    return lambda: textbook.search_step(net, sgd, adam, train, val)


def search_kit(size: Size, checkpoint: str = "none", precision: str = "fp32", **options: Any) -> Callable[[], Any]:
    runtime = compute(precision, search=True)
    net: SuperNet = runtime.prepare(SuperNet(size.space, **options).train())
    net.set_recompute(checkpoint)  # type: ignore[arg-type]
    net.resample(torch.Generator().manual_seed(0))
    fused = runtime.fused
    sgd = torch.optim.SGD(net.weight_parameters(), 2e-3, 0.9, weight_decay=3e-4, fused=fused)
    adam = torch.optim.Adam(net.arch_parameters(), 3e-4, betas=(0.5, 0.999), weight_decay=1e-3, fused=fused)
    train, val = size.batches(runtime.device, 2)
    return lambda: kit.search_step(net, sgd, adam, train, val, runtime)


def genotype_of(space: SearchSpace) -> Genotype:
    """The architecture that is retrained and run: drawn at random, so that every operation is likely in it."""
    return Genotype.random(space, 0)


def retrain_textbook(size: Size) -> Callable[[], Any]:
    runtime = compute()
    net = kit.twin(DerainNet(genotype_of(size.space)).train()).to(runtime.device)
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    (batch,) = size.batches(runtime.device, 1)
    return lambda: textbook.retraining_step(net, adam, batch)


def retrain_kit(size: Size, checkpoint: str = "none", precision: str = "fp32") -> Callable[[], Any]:
    runtime = compute(precision)
    net = runtime.prepare(DerainNet(genotype_of(size.space)).train())
    net.set_recompute(checkpoint)  # type: ignore[arg-type]
    adam = torch.optim.Adam(net.parameters(), 1e-3, fused=runtime.fused)
    (batch,) = size.batches(runtime.device, 1)
    return lambda: kit.retraining_step(net, adam, batch, runtime)


# --- pictures ---


def lively(net: DerainNet) -> DerainNet:
    """Statistics and scales away from 0 and 1, as after training: folding must have something to fold."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_var, module.weight):
                if tensor is not None:
                    tensor.data.copy_(0.75 + 0.5 * torch.rand(tensor.shape, generator=generator))
            module.running_mean.copy_(0.1 * torch.randn(module.running_mean.shape, generator=generator))  # type: ignore
    return net.eval()


def picture(height: int, width: int) -> Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(0))


def derain_textbook(height: int, width: int, space: SearchSpace = PAPER) -> Callable[[], Tensor]:
    runtime = compute()
    net = kit.twin(lively(DerainNet(genotype_of(space)))).to(runtime.device)
    x = picture(height, width).to(runtime.device)

    @torch.no_grad()
    def run() -> Tensor:
        padded = F.pad(x, (0, -width % space.multiple, 0, -height % space.multiple), "reflect")
        return net(padded)[..., :height, :width]

    return run


def derain_kit(
    height: int,
    width: int,
    precision: str = "fp32",
    tile: int | None = None,
    carry: bool = True,
    compiled: bool = False,
    space: SearchSpace = PAPER,
) -> Callable[[], Tensor]:
    runtime = compute(precision)
    net = runtime.prepare(fold(lively(DerainNet(genotype_of(space)))))
    x = picture(height, width).to(runtime.device).contiguous(memory_format=torch.channels_last)
    whole: Callable[[Tensor], Tensor] = net
    if compiled:
        import torch._inductor.config as inductor

        inductor.freezing = True  # type: ignore[attr-defined]  # weights become constants, in the layout kernels like
        whole = torch.compile(net, dynamic=False)

    def run() -> Tensor:
        with torch.inference_mode() if not compiled else torch.no_grad(), runtime.autocast():
            output = whole(x) if tile is None else derain_tiled(net, x, tile=tile, carry=carry)
        return output.float()

    return run


# --- the loss alone ---


def loss_textbook(size: Size) -> Callable[[], Any]:
    ((rainy, clean),) = size.batches(torch.device("cpu"), 1)
    rainy.requires_grad_()
    return lambda: textbook.image_loss(rainy, clean).backward()


def loss_kit(size: Size) -> Callable[[], Any]:
    ((rainy, clean),) = size.batches(torch.device("cpu"), 1)
    rainy.requires_grad_()
    loss = DerainLoss(kit.LOSS)
    return lambda: loss(rainy, clean, epoch=0)[0].backward()


MAKERS: dict[str, Callable[..., Callable[[], Any]]] = {
    "search textbook": lambda **size: search_textbook(Size(**size)),
    "search kit": lambda **size: search_kit(Size(**size)),
    "search kit, edges recomputed": lambda **size: search_kit(Size(**size), checkpoint="edges"),
    "search kit, all recomputed": lambda **size: search_kit(Size(**size), checkpoint="all"),
    "retrain textbook": lambda **size: retrain_textbook(Size(**size)),
    "retrain kit": lambda **size: retrain_kit(Size(**size)),
    "retrain kit, all recomputed": lambda **size: retrain_kit(Size(**size), checkpoint="all"),
    "derain textbook": derain_textbook,
    "derain kit": derain_kit,
    "derain kit, bf16": lambda **size: derain_kit(**size, precision="bf16"),
    "derain kit, tiles": lambda **size: derain_kit(**size, tile=512),
    "derain kit, tiles on their own": lambda **size: derain_kit(**size, tile=512, carry=False),
}
"""What a fresh process can be asked to run for its peak memory, by name."""
