"""Detectors that stay as they are: COCO-SSD by onnxruntime, or one of torchvision's where that is installed.

COCO-SSD is SSDLite on MobileNetV2, trained on COCO by Google (Apache-2.0; W. Liu et al., SSD, arXiv 1512.02325, and
M. Sandler et al., MobileNetV2, arXiv 1801.04381). `python data_scripts/coco_ssd/make.py` fetches and converts it.
"""

import importlib.util
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from manas_course.downstream.boxes import CATEGORIES, Boxes, iou
from manas_lite.data.registry import data_folder
from manas_lite.photos.images import to_tensor

MAKE = "python data_scripts/coco_ssd/make.py"
FEWEST = 0.01  # detections with a lower score are dropped at once


class Detector(Protocol):
    """Anything that finds the objects on a picture."""

    def __call__(self, picture: np.ndarray) -> Boxes:
        """Return the detections on a picture, uint8 (H, W, 3), with their scores, the surest first."""
        ...


def default_detector_file() -> Path:
    """Return where `make.py` leaves the converted detector: in `models`, beside the folder of data sets."""
    return data_folder().parent / "models" / "coco_ssd.onnx"


class CocoSsd:
    """The converted COCO-SSD.

    Args:
        path: the ONNX file; where its script leaves it by default.
        overlap: boxes of one category that overlap more (IoU) are one object. The default is its training's value.
        most: detections kept per picture. COCO's own evaluation takes at most 100.
        threads: of onnxruntime.
    """

    def __init__(self, path: Path | None = None, *, overlap: float = 0.6, most: int = 100, threads: int = 1) -> None:
        path = path or default_detector_file()
        if not path.is_file():
            raise FileNotFoundError(f"no detector at {path}: make it once by `{MAKE}`")
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise ModuleNotFoundError("the detector needs an extra: pip install 'manas_lite[downstream]'") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # it warns of shapes that the graph leaves open on purpose
        self.overlap, self.most = overlap, most
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes, without a common one
            raise ValueError(f"{path} is no ONNX model that onnxruntime reads: make it anew by `{MAKE}`") from error
        ends = len(self.session.get_inputs()), len(self.session.get_outputs())
        if ends != (1, 2):
            raise ValueError(f"{path} has {ends[0]} inputs and {ends[1]} outputs, COCO-SSD 1 and 2: `{MAKE}` makes it")

    def __call__(self, picture: np.ndarray) -> Boxes:
        height, width = picture.shape[:2]
        name = self.session.get_inputs()[0].name
        scores, corners = self.session.run(None, {name: np.ascontiguousarray(picture)[None]})
        return suppress(*decode(scores, corners, height, width), self.overlap, self.most)


def find_detector(path: Path | None = None) -> CocoSsd | None:
    """Return COCO-SSD where it is at hand, and None where its file or onnxruntime is missing."""
    if importlib.util.find_spec("onnxruntime") is None or not (path or default_detector_file()).is_file():
        return None
    return CocoSsd(path)


def decode(scores: np.ndarray, corners: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Turn the network's outputs for A anchors into scores, (A, 90), and corners in pixels, (A, 4).

    The outputs are scores, (1, A, 90), and corners, (1, A, 1, 4), as shares of the picture: top, left, bottom, right.
    In pixels they are left, top, right, bottom, within the picture.
    """
    top, left, bottom, right = np.clip(corners.reshape(-1, 4), 0, 1).T
    pixels = np.stack([left * width, top * height, right * width, bottom * height], axis=1)
    pixels[:, 2:] = np.maximum(pixels[:, 2:], pixels[:, :2])
    return scores.reshape(len(pixels), -1), pixels


def suppress(scores: np.ndarray, corners: np.ndarray, overlap: float = 0.6, most: int = 100) -> Boxes:
    """Suppress what is not the surest, category by category: the surest box stays, those that overlap it more go.

    Args:
        scores: (A, 90), with category id c + 1 in column c.
        corners: (A, 4) in pixels, shared by the categories.
        overlap: the IoU above which two boxes of a category are one object.
        most: how many detections are kept.
    """
    kept: list[tuple[float, int, int]] = []  # score, anchor, category
    for number in CATEGORIES:
        column = scores[:, number - 1]
        order = np.flatnonzero(column >= FEWEST)
        order = order[np.argsort(-column[order], kind="stable")][: 2 * most]
        while len(order):
            first, order = order[0], order[1:]
            kept.append((column[first], first, number))
            order = order[iou(corners[first], corners[order])[0] <= overlap]
    kept = sorted(kept, key=lambda found: -found[0])[:most]
    best, anchors, labels = zip(*kept, strict=True) if kept else ((), (), ())
    return Boxes(corners[list(anchors)], np.array(labels), np.array(best))


class TorchDetector:
    """A torchvision detector, or any module of the same form, on machines that reach torchvision's server.

        TorchDetector(torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights="DEFAULT"))

    Its category ids are COCO's.
    """

    def __init__(self, module: torch.nn.Module, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.module = module.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray) -> Boxes:
        found: dict[str, Any] = self.module([to_tensor(picture).to(self.device)])[0]
        corners, labels, scores = (found[name].cpu().numpy() for name in ("boxes", "labels", "scores"))
        boxes = Boxes(corners, labels, scores).above(FEWEST)
        return boxes[np.argsort(-boxes.scores, kind="stable")]
