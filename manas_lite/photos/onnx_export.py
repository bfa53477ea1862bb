"""A derived network as one ONNX file, for programs without PyTorch: any batch, any height and width.

The file takes `rainy`, float32 (N, 3, H, W) in [0, 1], and returns `derained`, the same shape, clamped to [0, 1].
BatchNorm is folded, and the padding to whole multiples is part of the graph. `OnnxNet` derains by such a file.
"""

import hashlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manas_lite.networks.nets import DerainNet
from manas_lite.photos.folding import fold
from manas_lite.photos.zoo import fingerprint
from manas_lite.runs.checkpoint import write_atomic
from manas_lite.runs.documents import one_line

TOLERANCE = 1e-4
"""Largest difference between the file's output and the network's, of values in [0, 1]."""

CHECKED = (37, 50)
"""Height and width of the picture on which a file is compared before it is written: no multiple of anything."""


class ExportError(RuntimeError):
    """An ONNX file would not compute what the network does."""


def export_onnx(net: DerainNet, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write `net` to `path` as ONNX, after running it once in onnxruntime beside the network, and return the path.

    It takes a minute or several: every size is a symbol, and torch.export (2.6 or newer) proves the graph right for
    all.

    Raises:
        FileExistsError: the file exists, and `overwrite` is off.
        ModuleNotFoundError: the extra `onnx` is missing.
        ExportError: the file would not compute what the network does; nothing is written.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"{path}: name a file that ends in .onnx")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: name another file, or set overwrite (--overwrite) to replace it")
    whole = AnySize(fold(net).cpu()).eval()
    data = _translate(whole, {"genotype": net.genotype.to_json(), "genotype_id": net.genotype.id})
    gap = _gap(data, whole)
    if not gap <= TOLERANCE:
        raise ExportError(
            f"onnxruntime's output differs from the network's by {gap:.2g}, more than {TOLERANCE:.0e}: not written. "
            "Try other versions of onnxruntime or torch"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data)
    return path


class OnnxNet(nn.Module):
    """A derived network whose passes are computed by ONNX Runtime, on the CPU.

    The network is exported once, into $MANAS_LITE_CACHE or .cache/manas_lite in the home folder.

    Args:
        net: the network; it stays as it is.
        threads: CPU threads of a pass.

    Raises:
        ModuleNotFoundError: the extra `onnx` is missing.
        ValueError: another kind of network.
        ExportError: the file does not compute what the network does.
    """

    folded: DerainNet
    """The network by torch, for pictures that go in tiles."""

    def __init__(self, net: nn.Module, threads: int) -> None:
        super().__init__()
        if not isinstance(net, DerainNet):
            raise ValueError(f"engine='onnx' takes a DerainNet, this is a {type(net).__name__}: use engine='torch'")
        _require("onnxruntime")
        import onnxruntime

        self.folded = fold(net).cpu()
        windows = [getattr(module, "window", None) for module in net.modules()]
        facts = metadata.version("manas_lite"), fingerprint(net), repr(net), windows
        name = hashlib.sha256(repr(facts).encode()).hexdigest()
        cache = Path(os.environ.get("MANAS_LITE_CACHE") or Path.home() / ".cache" / "manas_lite")
        file = cache / "onnx" / f"{name}.onnx"
        if not file.exists():
            print(f"exporting the network to {file}, once: about 20 seconds", file=sys.stderr)
            export_onnx(net, file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            gap = _gap(file.read_bytes(), AnySize(self.folded))
            self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no class in common
            raise ExportError(f"{file}: onnxruntime cannot use it ({one_line(str(error))}): delete it") from None
        if not gap <= TOLERANCE:
            raise ExportError(f"{file}: its output differs from the network's by {gap:.2g}: delete it")

    def forward(self, rainy: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {"rainy": rainy.numpy()})[0])


class AnySize(nn.Module):
    """A network with its padding in the form of a gather, which no Python branch on the size decides."""

    def __init__(self, net: DerainNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, rainy: Tensor) -> Tensor:
        height, width = rainy.shape[2:]
        multiple = self.net.space.multiple
        padded = rainy.index_select(2, padded_positions(height, multiple, rainy.device))
        padded = padded.index_select(3, padded_positions(width, multiple, rainy.device))
        return self.net(padded)[..., :height, :width].clamp(0, 1)


def padded_positions(length: int, multiple: int, device: torch.device) -> Tensor:
    """Return `backbone.pad_to_multiple` as an index: where each of `length` pixels, rounded up to a multiple, is read.

    Pixels are reflected at the end; the last one is repeated where the side is too short to reflect.
    """
    total = (length + multiple - 1) // multiple * multiple  # no -(-a // b): ONNX rounds quotients towards zero
    position = torch.arange(total, device=device)
    mirrored = torch.where(position < length, position, 2 * (length - 1) - position)
    return torch.where(mirrored.min() < 0, position.clamp(max=length - 1), mirrored)


def _translate(net: AnySize, facts: dict[str, str]) -> bytes:
    _require("onnx", "onnxscript")
    any_size = torch.export.Dim.DYNAMIC
    with _quiet():
        program: Any = torch.onnx.export(
            net,
            (torch.rand(2, 3, 40, 48),),  # an example: nothing of its size is kept
            input_names=["rainy"],
            output_names=["derained"],
            dynamic_shapes=({0: any_size, 2: any_size, 3: any_size},),
            dynamo=True,
            verbose=False,
        )
        program.model.metadata_props.update(facts)
        return program.model_proto.SerializeToString()


def _gap(data: bytes, net: AnySize) -> float:
    _require("onnxruntime")
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    rainy = torch.rand((1, 3, *CHECKED), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = net(rainy).numpy()
    (found,) = session.run(None, {"rainy": rainy.numpy()})
    return float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")


def _require(*names: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"ONNX export needs {' and '.join(missing)}: pip install 'manas_lite[onnx]'")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which remarks on packages it could also know, and on its own future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
