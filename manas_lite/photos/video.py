"""Derain a video frame by frame. The `video` extra brings ffmpeg; without it, a folder of frames does the same.

Each frame is derained on its own, so that what is left of the rain may flicker. Frames come at a constant rate.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from manas_lite.photos.folders import LONG, duration
from manas_lite.photos.inference import check_replacing, derain, seconds_per_pixel
from manas_lite.runs.progress import Progress

VIDEOS = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"})
"""File name endings (lower case) that are taken for videos."""

OUTPUTS = VIDEOS - {".webm"}
"""Endings of files that can be written; WebM holds no H.264."""


def derain_video(
    path: Path,
    net: nn.Module,
    output: Path,
    *,
    overwrite: bool = False,
    in_place: bool = False,
    say: Callable[[str], None] = print,
    **options: Any,
) -> Path:
    """Derain a video and return the file written: H.264, the sound copied where there is some.

    Args:
        output: the file to write; its ending is one of `OUTPUTS`.
        say: is told how long it will take, and that an odd side gets its last row or column twice, as H.264 wants.
        options: those of `derain`.

    Raises:
        ModuleNotFoundError: the `video` extra is missing.
        FileNotFoundError: there is no such video.
        FileExistsError: the output exists and `overwrite` is off, or it is the video itself and `in_place` is off.
        DivergedNetworkError: the network answers with NaN; nothing is written.
        ValueError: ffmpeg cannot read the file, or the ending is not of an H.264 video.
        OSError: ffmpeg did not write every frame.
    """
    try:
        import imageio_ffmpeg as ffmpeg
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "videos need an extra: pip install 'manas_lite[video]'. Or give a folder with its frames as pictures"
        ) from None
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such video")
    if output.suffix.lower() not in OUTPUTS:
        raise ValueError(f"{output}: no ending of an H.264 video; use one of {', '.join(sorted(OUTPUTS))}")
    check_replacing(path, output, overwrite, in_place)
    try:
        count, _ = ffmpeg.count_frames_and_secs(str(path))
        frames = ffmpeg.read_frames(str(path))
        facts = next(frames)
    except (OSError, RuntimeError, StopIteration) as error:
        raise ValueError(f"{path}: ffmpeg reads no video there ({str(error).splitlines()[0]})") from None
    width, height = facts["size"]
    seconds = seconds_per_pixel(net, options.get("compute")) * count * width * height * options.get("scale", 1.0) ** 2
    if seconds > LONG:
        say(f"{count} frames of {width}x{height}: about {duration(seconds)} here")
    pad = ((0, height % 2), (0, width % 2), (0, 0))
    size = width + width % 2, height + height % 2
    if size != (width, height):
        say(f"H.264 wants even sides: {width}x{height} becomes {size[0]}x{size[1]}")
    sound = {"audio_path": str(path), "audio_codec": "copy"} if facts.get("audio_codec") else {}
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.stem[:40]}.{os.getpid()}{output.suffix}")
    writer = ffmpeg.write_frames(str(temporary), size, fps=facts["fps"], macro_block_size=1, **sound)
    try:
        writer.send(None)
        sent = 0
        with Progress(count, "derain") as bar:
            for frame in frames:
                picture = np.frombuffer(frame, np.uint8).reshape(height, width, 3)
                derained = np.pad(derain(picture, net, **options), pad, mode="edge")
                sent += 1
                try:
                    writer.send(derained)
                except OSError:
                    break  # ffmpeg has ended: too few frames, found below
                bar.step()
        writer.close()
        # Neither a refused sound nor a full disk is an error of the writer: what it left is read again.
        written = _frames_in(temporary, ffmpeg)
        if written < max(sent, 1):
            hint = "; the sound is copied as it is, and an output that ends in .mkv takes any" if sound else ""
            raise OSError(f"{output}: of {sent} frames ffmpeg wrote {written} (its own words stand above{hint})")
        os.replace(temporary, output)
    finally:
        writer.close()
        frames.close()
        temporary.unlink(missing_ok=True)
    return output


def _frames_in(video: Path, ffmpeg: Any) -> int:
    """Return how many frames ffmpeg reads from a file; 0 for what is no video."""
    try:
        return int(ffmpeg.count_frames_and_secs(str(video))[0])
    except (OSError, RuntimeError):
        return 0
