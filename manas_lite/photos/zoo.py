"""Networks as files: `load(name_or_path)`, how a run directory keeps one, and how a model hub gets one."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet
from manas_lite.photos.hub import Address, library, network_folder, told
from manas_lite.runs import checkpoint
from manas_lite.runs.checkpoint import sha256_of
from manas_lite.runs.documents import LARGEST_JSON, about, document, one_line, read_json

SHIPPED = Path(__file__).resolve().parents[1] / "assets" / "models"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class _Card:
    """What must be in the card of a shipped model, and of one on a hub."""

    sha256: str


@dataclass(frozen=True)
class _Meta:
    """What must be in a file of a derived network beside its tensors."""

    kind: str
    genotype: str


def load(name_or_path: str | Path) -> DerainNet:
    """Return a trained network, on the CPU, in eval mode.

    Args:
        name_or_path: a model shipped with the package, a run directory of `retrain` or the demo, its
            weights.safetensors, or "hub:OWNER/NAME@REVISION", a repository of a model hub (extra `hub`). REVISION is a
            commit, a tag or a branch; without it, or where it may move, the commit is printed. "#SHA256" behind it
            states the weights' sha256.

    Raises:
        CheckpointError: the file is no network or is damaged, a genotype.json beside it is another than the one in it,
            or the weights have another sha256 than their card or the address states.
        FileNotFoundError: there is no such network, and the message names the shipped ones.
        HubError: the hub does not deliver.

    Example:
        >>> type(load("rain-lite")).__name__
        'DerainNet'
    """
    path, text = Path(name_or_path), str(name_or_path)
    if address := Address.parse(text) if text.startswith("hub:") else None:
        path = network_folder(address, (WEIGHTS, "card.json", "genotype.json"))
        _check_card(path, address.sha256, f"{address} is damaged or was changed, so take another revision")
    elif not path.exists():
        shipped = sorted(p.name for p in SHIPPED.glob("*") if p.is_dir())
        if text not in shipped:
            known = f"shipped models: {', '.join(shipped)}" if shipped else "this version ships no trained model"
            raise FileNotFoundError(f"no network at {path}, and {known}. `make demo` trains one into runs/demo")
        path = SHIPPED / text
        _check_card(path, None, "install manas_lite anew")
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
            own = DerainNet(genotype).state_dict()
        weights = _single(tensors.get("net"))
        checkpoint.check_state(own, weights)
        for name, value in weights.items():
            if not value.isfinite().all():
                raise ValueError(f"{name} holds NaN or infinite weights: take an earlier file, or train it again")
    beside = file.with_name("genotype.json")
    if beside.exists() and Genotype.load(beside) != genotype:
        raise checkpoint.CheckpointError(f"{file} was trained for another genotype than {beside}")
    net = DerainNet(genotype)
    net.load_state_dict(weights)
    return net.eval()


def _single(weights: Any) -> Any:
    """Return weights with those that a file holds in half precision as float32, and anything else as it is."""
    if not isinstance(weights, dict):
        return weights
    halves = {name for name, value in weights.items() if getattr(value, "dtype", None) == torch.float16}
    return {name: value.float() if name in halves else value for name, value in weights.items()}


def _check_card(folder: Path, stated: str | None, advice: str) -> None:
    """Hold the weights in a folder to the sha256 that their card states, and to the one that the user states."""
    for name in ("card.json", WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}: {advice}")
    file, found = folder / "card.json", sha256_of(folder / WEIGHTS)
    card = document(_Card, read_json(file, LARGEST_JSON), file, more=True)
    for who, sha256 in {"its card states": card.sha256, "you state": stated}.items():
        if sha256 not in (None, found):
            text = f"{folder / WEIGHTS} has the sha256 {found}, {who} {sha256}: {advice}"
            raise checkpoint.CheckpointError(one_line(text))


def fingerprint(net: nn.Module) -> str:
    """sha256 of a network's weights, names and values, wherever it lies."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_network(directory: Path, net: DerainNet, *, half: bool = False) -> None:
    """Write weights.safetensors, which holds the genotype too, into a directory; `half`: as float16, half the bytes."""
    state = net.state_dict().items()
    tensors = {name: value.half() if half and value.is_floating_point() else value for name, value in state}
    save_tensors(directory / WEIGHTS, tensors, kind="network", genotype=net.genotype)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, kind: str, genotype: Genotype) -> None:
    meta: dict[str, Any] = {"kind": kind, "genotype": genotype.to_json()}
    checkpoint.write(path, {"net": dict(tensors)}, meta)


def save_pretrained(net: DerainNet | str | Path, folder: str | Path) -> None:
    """Write a network as a repository of a model hub: weights, genotype, card.json and README; `load(folder)` reads it.

    Args:
        net: the network, or what `load` takes. Where a card, README and pictures lie beside it, they go with it.
        folder: is made where it is missing.
    """
    _portable(net).save_pretrained(folder)


def push_to_hub(net: DerainNet | str | Path, repository: str, **options: Any) -> str:
    """Upload a network as `save_pretrained` writes it; return its address for `load`, whose revision is pinned.

    Args:
        net: the network, or what `load` takes.
        repository: "OWNER/NAME"; it is made where it is missing.
        options: of `huggingface_hub`'s `ModelHubMixin.push_to_hub`, such as private=True or token="...".

    Raises:
        HubError: the hub cannot be reached, or refuses.
    """
    with told(Address.parse(repository)):
        return str(Address(repository, _portable(net).push_to_hub(repository, **options).oid))


def _portable(source: DerainNet | str | Path) -> Any:
    """Return a network as an object that has the methods of `huggingface_hub`'s mixin."""
    net = source if isinstance(source, DerainNet) else load(source)
    homes = () if isinstance(source, DerainNet) else (SHIPPED / source, Path(source))
    tags = ["image-deraining", "image-restoration", "neural-architecture-search", "pytorch"]
    head: Any = {"library_name": "manas_lite", "pipeline_tag": "image-to-image", "tags": tags}

    class Portable(library().ModelHubMixin, **head):  # type: ignore[misc]
        def _save_pretrained(self, save_directory: Path) -> None:
            for file in (home / name for home in homes for name in ("README.md", "card.json", "pictures.jpg")):
                if file.is_file():
                    shutil.copyfile(file, save_directory / file.name)
            save_network(save_directory, net)
            checkpoint.write_atomic(save_directory / "genotype.json", net.genotype.to_json().encode())
            card: dict[str, Any] = {"genotype": net.genotype.id, "parameters": sum(p.numel() for p in net.parameters())}
            card |= read_json(save_directory / "card.json") if (save_directory / "card.json").is_file() else {}
            card["sha256"] = sha256_of(save_directory / WEIGHTS)
            checkpoint.write_atomic(save_directory / "card.json", json.dumps(card, indent=2).encode())

    return Portable()
