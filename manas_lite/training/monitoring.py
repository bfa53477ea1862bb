"""What a run tells of itself, and to whom: facts of a search per epoch, when it should stop, TensorBoard."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from manas_lite.networks.costs import Costs
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import SuperNet

LogTo = Literal["tensorboard"] | Callable[[Mapping[str, Any]], object] | None
"""Who is told each record of a run, beside its log.jsonl: TensorBoard, or a function of one's own."""

SPAN = 5  # RobustDARTS's k: measurements in a mean of eigenvalues, and how many of them a stop goes back


@torch.no_grad()
def report(net: SuperNet, costs: Costs) -> dict[str, Any]:
    """Return facts of the present architecture weights, without sampling noise.

    Returns:
        `alpha` and `beta`, the mixture weights, rounded to 6 digits; `alpha_entropy` and `beta_entropy`, see
        `row_entropy`; `skip_share`, the mean weight of `skip_connect`; `skip_edges`, the share of the edges where it is
        the choice; `expected_cost` of the relaxed network, as a share of the largest; `genotype`, the id of what argmax
        would derive now.
    """
    space = net.space
    soft = replace(net.relaxation, hard=False)
    alpha, beta = (soft.weights(logits).cpu().double() for logits in net.logits())
    genotype = Genotype.from_logits(space, net.alpha, net.beta)
    expected = costs.fixed + float((alpha * costs.modules).sum() + (beta * costs.edges).sum())
    edges = max(1, len(genotype.edges))
    skips = [k for k, name in enumerate(space.operations) if name == "skip_connect"]
    return {
        "alpha": [[round(w, 6) for w in row] for row in alpha.tolist()],
        "beta": [[round(w, 6) for w in row] for row in beta.tolist()],
        "alpha_entropy": row_entropy(alpha),
        "beta_entropy": row_entropy(beta),
        "skip_share": float(beta[:, skips].sum()) / edges,
        "skip_edges": genotype.edges.count("skip_connect") / edges,
        "expected_cost": expected / costs.largest,
        "genotype": genotype.id,
    }


@torch.no_grad()
def decisions(net: SuperNet, genotype: Genotype) -> list[dict[str, Any]]:
    """List what was decided at each place of a genotype, and how clearly.

    Returns:
        A record per place: `place` (`module 3`, `edge 5`), `chosen` and its `weight`, `against` (the largest other
        candidate) and `margin`, the chosen weight less that one's. A margin below 0 says that what was derived is not
        what had the largest weight.
    """
    soft = replace(net.relaxation, hard=False)
    records = []
    kinds = (("module", net.space.modules, genotype.modules), ("edge", net.space.operations, genotype.edges))
    for (kind, names, chosen), logits in zip(kinds, net.logits(), strict=True):
        for row, (name, weights) in enumerate(zip(chosen, soft.weights(logits).tolist(), strict=True)):
            others = dict(zip(names, weights, strict=True))
            weight = others.pop(name)
            against = max(others, key=others.__getitem__, default=None)
            margin = weight if against is None else weight - others[against]
            facts = {"weight": round(weight, 6), "against": against, "margin": round(margin, 6)}
            records.append({"place": f"{kind} {row}", "chosen": name, **facts})
    return records


@torch.no_grad()
def row_entropy(weights: Tensor) -> float:
    """Return the mean entropy of rows of weights (n, k) as a share of the largest, log k: 1 undecided, 0 decided."""
    if not weights.numel() or weights.shape[1] == 1:  # nothing to decide
        return 0.0
    entropy = -(weights * weights.clamp_min(1e-30).log()).sum(1).mean()
    return float(entropy) / math.log(weights.shape[1])


def skip_collapse(skip_edges: float, limit: float) -> str | None:
    """Tell why a search should stop and go back one epoch: more than `limit` of its edges choose skipping; or None."""
    collapsed = f"{skip_edges:.0%} of the edges choose skip_connect (limit {limit:.0%})"
    return collapsed if skip_edges > limit else None


def eigenvalue_rise(eigenvalues: list[float], ratio: float | None = 0.75) -> str | None:
    """Tell why a search should stop and go back `SPAN` measurements, or return None.

        mean of the five magnitudes before the last five / mean of the last five  <  ratio

    The architecture of five measurements earlier is the last that has no part in the risen mean. The eigenvalues are
    all so far, the oldest first; fewer than ten decide nothing. Without a `ratio` nothing stops a search.

    Source: RobustDARTS (Zela et al., ICLR 2020).
    """
    if ratio is not None and len(eigenvalues) >= 2 * SPAN:
        magnitudes = [abs(value) for value in eigenvalues]
        old, new = sum(magnitudes[-2 * SPAN : -SPAN]) / SPAN, sum(magnitudes[-SPAN:]) / SPAN
        if new > 0 and old / new < ratio:
            return f"the architecture Hessian's dominant eigenvalue rose from {old:.3g} to {new:.3g}"
    return None


@contextmanager
def followed(log_to: LogTo, path: Path, start: int) -> Iterator[Callable[..., None]]:
    """Yield what is told each record of a run; an error of who follows it is shown once, and ends nothing.

    TensorBoard's files go into the run's folder, `path`. It forgets what it was told of step `start` and later ones.
    """
    failed = False

    def tell(record: Mapping[str, Any], more: Callable[[], Mapping[str, Any]] = dict) -> None:
        nonlocal failed
        if write is None:
            return
        try:
            write({**record, **more()})
        except Exception as error:
            if not failed:
                warnings.warn(f"log_to failed: {type(error).__name__}: {error}. The run goes on", stacklevel=3)
            failed = True

    with _event_file(path, start) if log_to == "tensorboard" else nullcontext(log_to) as write:
        yield tell


@contextmanager
def _event_file(path: Path, start: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        text = "log_to='tensorboard' needs an extra: pip install 'manas_lite[tensorboard]'"
        raise ModuleNotFoundError(text) from None

    def put(name: str, value: Any, step: int) -> None:
        if isinstance(value, Mapping):
            for part, each in value.items():
                put(f"{name}/{part}", each, step)
        elif isinstance(value, int | float):
            writer.add_scalar(name, value, step)
        elif hasattr(value, "savefig"):
            writer.add_figure(name, value, step)

    with SummaryWriter(str(path), purge_step=start) as writer:
        yield lambda record: put(record["kind"], record, record["step"])
