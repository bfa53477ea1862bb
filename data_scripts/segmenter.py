"""Make the fixed segmenter of the downstream evaluation: python data_scripts/segmenter.py [FILE.safetensors]

It is trained on the twenty bundled photographs that `photos` trains or validates on, for a few minutes on one thread.
"""

import argparse
import sys
from pathlib import Path

from manas_course.downstream.masks import bundled_masks
from manas_course.downstream.segmentation import BUNDLED_SEGMENTER, SegmenterSettings, save_segmenter, train_segmenter
from manas_lite.compute.runtime import ComputeSettings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, nargs="?", default=BUNDLED_SEGMENTER, help="default: %(default)s")
    make(parser.parse_args().output, SegmenterSettings())
    return 0


def make(output: Path, settings: SegmenterSettings) -> None:
    """Train on the bundled photographs with one thread, so that the same settings give the same weights; save."""
    data = bundled_masks()
    net = train_segmenter(data, settings, compute=ComputeSettings(device="cpu", threads=1))
    save_segmenter(output, net, settings, data)


if __name__ == "__main__":
    sys.exit(main())
