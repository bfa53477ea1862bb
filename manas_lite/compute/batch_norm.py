"""BatchNorm over the batch of all processes: a run of several is then the run of one.

torch.nn.SyncBatchNorm refuses CPUs, and its gradient cannot be differentiated again; this one is made of operations
that can be.
"""

from typing import cast

import torch
from torch import Tensor, nn

from manas_lite.compute.processes import Processes


class SharedBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d whose batch is spread over `processes`, with the same number of values per channel in each.

    Means and variances of the processes are combined as in Chan et al. (1979): no sum of squares, whose difference
    from the square of the sum would be lost in rounding.
    """

    processes: Processes

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input if input.dtype == torch.float64 else input.float()
        pixels = x.permute(0, 2, 3, 1)  # (B, H, W, C); as rows of C, sums are quick in the memory format of a run
        rows = pixels.reshape(-1, self.num_features)
        own_mean = rows.mean(0)
        own = torch.stack([(rows - own_mean).square().mean(0), own_mean])  # (2, C)
        variances, means = self.processes.gather(own).unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        self._follow(mean.detach(), variance.detach(), self.processes.count * len(rows))
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        shift = self.bias - mean * scale if self.affine else -mean * scale
        y = torch.addcmul(shift, rows, scale).view(pixels.shape).permute(0, 3, 1, 2)
        return y.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics: the variance without bias, as nn.BatchNorm2d does."""
        if not self.track_running_stats:
            return
        seen = cast(Tensor, self.num_batches_tracked).add_(1)
        momentum = 1 / float(seen) if self.momentum is None else self.momentum
        cast(Tensor, self.running_mean).lerp_(mean, momentum)
        cast(Tensor, self.running_var).lerp_(variance * (count / max(1, count - 1)), momentum)


def share_statistics(net: nn.Module, processes: Processes) -> None:
    """Let every nn.BatchNorm2d of `net` normalise by the batch of all processes; with one nothing changes.

    Parameters, buffers and their names stay as they are.
    """
    if processes.count == 1:
        return
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum, child.affine)
                shared.processes = processes
                shared._parameters, shared._buffers = child._parameters, child._buffers  # the same tensors
                setattr(parent, name, shared.train(child.training))
