"""Derain a video frame by frame. The `video` extra brings ffmpeg; without it, a folder of frames does the same.

Each frame is derained on its own, so that what is left of the rain may flicker. Frames come at a constant rate.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from .folders import LONG, duration
from .inference import derain, seconds_per_pixel
from .progress import Progress

__all__ = ["VIDEOS", "derain_video"]

VIDEOS = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"})
"""File name endings (lower case) that are taken for videos."""


def derain_video(
    path: Path,
    net: nn.Module,
    output: Path,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
    **options: Any,
) -> Path:
    """Derain a video into `output` (H.264, the sound copied where it has some); `options` are those of `derain`.

    Raises ModuleNotFoundError without the extra, FileNotFoundError, FileExistsError, or ValueError for a file that
    ffmpeg cannot read.
    """
    try:
        import imageio_ffmpeg as ffmpeg
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "videos need an extra: pip install 'manas_lite[video]'. Or give a folder with its frames as pictures"
        ) from None
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such video")
    if output.suffix.lower() not in VIDEOS:
        raise ValueError(f"{output}: unknown video ending; use one of {', '.join(sorted(VIDEOS))}")
    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists: name another output, or set overwrite (--overwrite) to replace it")
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
    sound = {"audio_path": str(path), "audio_codec": "copy"} if facts.get("audio_codec") else {}
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.stem}.{os.getpid()}{output.suffix}")
    writer = ffmpeg.write_frames(str(temporary), (width, height), fps=facts["fps"], macro_block_size=1, **sound)
    try:
        writer.send(None)
        with Progress(count, "derain") as bar:
            for frame in frames:
                picture = np.frombuffer(frame, np.uint8).reshape(height, width, 3)
                writer.send(np.ascontiguousarray(derain(picture, net, **options)))
                bar.step()
        writer.close()
        os.replace(temporary, output)
    finally:
        writer.close()
        frames.close()
        temporary.unlink(missing_ok=True)
    return output
