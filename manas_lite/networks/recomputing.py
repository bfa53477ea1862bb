"""Time for memory: run a module now, throw its intermediate results away, compute them again in the backward pass."""

from typing import Any, Literal

import torch
from torch import nn
from torch.func import functional_call
from torch.utils import checkpoint as checkpointing

Recompute = Literal["none", "edges", "all"]
"""`edges` recomputes the gates of the attention edges (they hold most of the memory and little of the time);
`all` recomputes attention blocks, searched modules and the stem."""


def recompute(module: nn.Module, *inputs: Any, when: bool) -> Any:
    """Return `module(*inputs)`; where gradients are asked for and `when` is true, only the inputs are kept.

    Values and gradients, second ones too, are those of the plain call. The second run uses the parameters of the
    first, also when `torch.func.functional_call` had put others in their place. It works on copies of the buffers, so
    that BatchNorm's running statistics move once.

    Source: Chen et al., arXiv 1604.06174.
    """
    if not (when and torch.is_grad_enabled()):
        return module(*inputs)
    parameters = dict(module.named_parameters())
    buffers = dict(module.named_buffers())
    again = False

    def run(*inputs: Any) -> Any:
        nonlocal again
        if not again:
            again = True
            return module(*inputs)
        copies = {name: buffer.clone() for name, buffer in buffers.items()}
        return functional_call(module, {**parameters, **copies}, inputs)

    # Nothing here is random, so no generator's state need be kept.
    return checkpointing.checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)
