"""PReNet's shape, to time beside the kit's models: six passes of one small recurrent network over a picture.

Ren et al., "Progressive Image Deraining Networks: A Better and Simpler Baseline", CVPR 2019: convolution, convolutional
LSTM, five residual blocks, convolution, all of 32 channels at full resolution, the same weights in every pass. Its
weights here are random: it is for cost (0.169 M parameters, as published), not for quality.
"""

import torch
from torch import Tensor, nn


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class PReNet(nn.Module):
    """Derains (B, 3, H, W) in `passes` passes; each reads the rainy picture and the last pass's result."""

    def __init__(self, width: int = 32, passes: int = 6) -> None:
        super().__init__()
        self.width, self.passes = width, passes
        self.enter = nn.Sequential(_conv(6, width), nn.ReLU())
        self.gates = _conv(2 * width, 4 * width)  # the LSTM's input, forget and output gate and its candidate
        self.blocks = nn.ModuleList(
            nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU()) for _ in range(5)
        )
        self.leave = _conv(width, 3)

    def forward(self, rainy: Tensor) -> Tensor:
        output = rainy
        hidden = cell = rainy.new_zeros(len(rainy), self.width, *rainy.shape[2:])
        for _ in range(self.passes):
            x = self.enter(torch.cat([rainy, output], dim=1))
            i, f, o, g = self.gates(torch.cat([x, hidden], dim=1)).chunk(4, dim=1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = x = o.sigmoid() * cell.tanh()
            for block in self.blocks:
                x = torch.relu(x + block(x))
            output = self.leave(x)
        return output
