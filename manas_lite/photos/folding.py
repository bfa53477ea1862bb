"""BatchNorm folded into the convolutions before it: fewer passes over every map, for inference alone."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from manas_lite.compute.runtime import Net


@torch.no_grad()
def fold(net: Net) -> Net:
    """Return a copy of a network, in eval mode, whose BatchNorms are part of the convolutions before them.

    In eval mode BatchNorm is a scale and a shift per channel, which the convolution's weights and a bias can hold.
    Outputs are equal to rounding (1e-5 of their size in float32). The copy is for inference: its statistics are
    gone, so it cannot be trained on, and its state dict is no longer the network's. Networks without BatchNorm are
    copied; activations after a convolution work in place either way.

    Raises:
        ValueError: no convolution stands before a BatchNorm.
    """
    folded = copy.deepcopy(net).eval()
    for module in list(folded.modules()):
        if isinstance(module, nn.Sequential):
            _fold_sequence(module)
    left = [name for name, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)]
    if left:
        raise ValueError(f"no convolution stands before the BatchNorm at {', '.join(left)}: it cannot be folded")
    return folded


def _fold_sequence(layers: nn.Sequential) -> None:
    for i in range(1, len(layers)):
        before, layer = layers[i - 1], layers[i]
        if isinstance(layer, nn.BatchNorm2d):
            holder, key = layers, i - 1
            while isinstance(before, nn.Sequential):  # the last layer of a group, as in separable convolutions
                holder, key = before, len(before) - 1
                before = holder[key]
            if isinstance(before, nn.Conv2d):
                holder[key] = fuse_conv_bn_eval(before, layer)
                layers[i] = nn.Identity()
        elif isinstance(layer, nn.ReLU) and not isinstance(before, nn.ReLU):
            layers[i] = nn.ReLU(inplace=True)  # what stands before made a new tensor that nobody else reads
