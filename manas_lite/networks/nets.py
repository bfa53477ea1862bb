"""The two fillings of the backbone: SuperNet, with every candidate at every place, and DerainNet, with one."""

import torch
from torch import Tensor, nn

from manas_lite.networks.backbone import Backbone
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.relaxation import Relaxation, gumbel_noise
from manas_lite.networks.space import SearchSpace

ARCHITECTURE = ("alpha", "beta")


class SuperNet(Backbone):
    """The relaxed network: every place holds all its candidates, mixed by softmax(alpha) and softmax(beta).

    alpha and beta are parameters, in the state dict, and never in the weight optimiser: `arch_parameters()` and
    `weight_parameters()` are disjoint and together complete.

    Args:
        space, seed: the search space, and what fixes the initial weights.
        arch_seed: fixes the initial logits, which are drawn from 1e-3 N(0, 1); None takes `seed`.
        relaxation: how logits become weights; None takes the softmax.
        masked: give no weight to what may not win (`none`, unless the space allows it). The published network mixes it
            in all the same, so that it can take the weight of a place that another candidate is then derived for.
        head_gain: share of its usual scale at which the head of a residual space starts. At 0 the first outputs are
            the inputs, and the first gradients of alpha and beta are 0.
    """

    alpha: nn.Parameter
    """Logits of the searched modules, (modules, candidate modules)."""
    beta: nn.Parameter
    """Logits of the searched edges, (edges, operations)."""
    alpha_noise: Tensor | None
    beta_noise: Tensor | None
    barred: Tensor

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        arch_seed: int | None = None,
        relaxation: Relaxation | None = None,
        masked: bool = False,
        head_gain: float = 0.0,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU generator alone: fork_rng restores no other
            modules, edges = [space.modules] * len(space.module_branches), [space.operations] * len(space.edge_branch)
            super().__init__(space, modules, edges)
            if space.residual and head_gain:
                self.head.reset_parameters()
                self.head.weight.data.mul_(head_gain)
        self.relaxation = relaxation or Relaxation()
        generator = torch.Generator().manual_seed(seed if arch_seed is None else arch_seed)
        for name, places, candidates in (("alpha", modules, space.modules), ("beta", edges, space.operations)):
            logits = 1e-3 * torch.randn(len(places), len(candidates), generator=generator)
            self.register_parameter(name, nn.Parameter(logits))
            self.register_buffer(f"{name}_noise", None, persistent=False)
        barred = torch.tensor([masked and name not in space.choices for name in space.operations])
        self.register_buffer("barred", barred, persistent=False)

    def arch_parameters(self) -> list[nn.Parameter]:
        """Return alpha and beta."""
        return [self.alpha, self.beta]

    def weight_parameters(self) -> list[nn.Parameter]:
        """Return all other parameters, in the order of `named_parameters`."""
        return [p for name, p in self.named_parameters() if name not in ARCHITECTURE]

    def resample(self, generator: torch.Generator) -> None:
        """Draw the Gumbel noise of one step; the softmax relaxation needs none."""
        if self.relaxation.kind == "gumbel":
            for name in ARCHITECTURE:
                logits = getattr(self, name)
                noise = gumbel_noise(tuple(logits.shape), generator, logits.dtype).to(logits.device)
                setattr(self, f"{name}_noise", noise)

    def logits(self) -> tuple[Tensor, Tensor]:
        """Return alpha and beta; what is masked has the logit -inf."""
        return self.alpha, self.beta.masked_fill(self.barred, -torch.inf)

    def weights(self) -> tuple[Tensor, Tensor]:
        """Return the mixture weights, in the shapes of alpha and beta; rows sum to 1. Only train mode has noise."""
        alpha_noise, beta_noise = (self.alpha_noise, self.beta_noise) if self.training else (None, None)
        alpha, beta = self.logits()
        return self.relaxation.weights(alpha, alpha_noise), self.relaxation.weights(beta, beta_noise)

    def mixture(self) -> tuple[list, list]:
        alpha, beta = ([self.relaxation.chosen(row) for row in rows.unbind()] for rows in self.weights())
        return self.space.by_cell(alpha, beta)

    def derive(self) -> Genotype:
        """Return the genotype of the largest weight in each row; `discretize.perturbation` decides in another way."""
        return Genotype.from_logits(self.space, self.alpha.detach(), self.beta.detach())


class DerainNet(Backbone):
    """The derived network of a genotype: only the chosen operations exist. `seed` fixes its initial weights."""

    def __init__(self, genotype: Genotype, *, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU generator alone: fork_rng restores no other
            super().__init__(genotype.space, [(m,) for m in genotype.modules], [(e,) for e in genotype.edges])
        self.genotype = genotype

    def inherit(self, supernet: SuperNet) -> "DerainNet":
        """Copy the weights of the chosen operations from a supernet of the same space; return self.

        Activations are others than in the supernet. Where the space normalises by batch, BatchNorm's statistics must
        therefore be measured again on training images before the network is judged: `torch.optim.swa_utils.update_bn`.
        """
        if supernet.space != self.space:
            raise ValueError("the supernet is of another space than this network's genotype")
        theirs = supernet.state_dict()
        self.load_state_dict({key: theirs[key] for key in self.state_dict()})
        return self
