"""Networks as files: `load(name_or_path)`, and how a run directory keeps one."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet
from manas_lite.runs import checkpoint
from manas_lite.runs.checkpoint import sha256_of
from manas_lite.runs.documents import about, document, one_line, read_json

SHIPPED = Path(__file__).resolve().parents[1] / "assets" / "models"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class _Card:
    """What must be in the card of a shipped model."""

    sha256: str


@dataclass(frozen=True)
class _Meta:
    """What must be in a file of a derived network beside its tensors."""

    kind: str
    genotype: str


def load(name_or_path: str | Path) -> DerainNet:
    """A trained network, on the CPU, in eval mode.

    name_or_path: a model shipped with the package, a run directory of `retrain` or the demo, or its
    weights.safetensors. The genotype is in the file; a genotype.json beside it must be the same one, and a shipped
    model's weights must have the sha256 that its card states (CheckpointError otherwise).

    >>> sum(p.numel() for p in load("rain-lite").parameters())
    220940
    """
    path = Path(name_or_path)
    if not path.exists():
        shipped = sorted(p.name for p in SHIPPED.glob("*") if p.is_dir())
        if str(name_or_path) not in shipped:
            known = f"shipped models: {', '.join(shipped)}" if shipped else "this version ships no trained model"
            raise FileNotFoundError(f"no network at {path}, and {known}. `make demo` trains one into runs/demo")
        path = SHIPPED / str(name_or_path)
        card = path / "card.json"
        stated = document(_Card, read_json(card), card, more=True).sha256
        if (found := sha256_of(path / WEIGHTS)) != stated:
            raise checkpoint.CheckpointError(
                f"{path / WEIGHTS} has the sha256 {found}, its card states {stated}: install manas_lite anew"
            )
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        searched = (path / "supernet.safetensors").exists()
        why = "it is a search, so retrain its genotype first" if searched else "a retraining writes it when it is done"
        raise FileNotFoundError(f"{path} holds no {WEIGHTS}: {why}")
    tensors, meta = checkpoint.read(file)
    if meta.get("kind") != "network":
        text = f"{file} holds no derived network but {meta.get('kind', 'something else')}"
        raise checkpoint.CheckpointError(one_line(text))
    with about(file, checkpoint.CheckpointError):
        genotype = Genotype.from_json(document(_Meta, meta, "its description").genotype)
        with torch.device("meta"):  # its names and shapes alone: nothing is built for a file that does not fit
            checkpoint.check_state(DerainNet(genotype).state_dict(), tensors.get("net"))
        for name, value in tensors["net"].items():
            if not value.isfinite().all():
                raise ValueError(f"{name} holds NaN or infinite weights: take an earlier file, or train it again")
    beside = file.with_name("genotype.json")
    if beside.exists() and Genotype.load(beside) != genotype:
        raise checkpoint.CheckpointError(f"{file} was trained for another genotype than {beside}")
    net = DerainNet(genotype)
    net.load_state_dict(tensors["net"])
    return net.eval()


def fingerprint(net: nn.Module) -> str:
    """sha256 of a network's weights, names and values, wherever it lies."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_network(directory: Path, net: DerainNet) -> None:
    """Write weights.safetensors, which holds the genotype too, into a directory."""
    save_tensors(directory / WEIGHTS, net.state_dict(), kind="network", genotype=net.genotype)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, kind: str, genotype: Genotype) -> None:
    meta: dict[str, Any] = {"kind": kind, "genotype": genotype.to_json()}
    checkpoint.write(path, {"net": dict(tensors)}, meta)
