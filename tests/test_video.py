"""Videos, frame by frame: what comes out, and what is refused."""

import subprocess

import numpy as np
import pytest
import torch

from manas_lite.photos.video import derain_video


class Darker(torch.nn.Module):
    """Takes 20 levels off everything."""

    def forward(self, x):
        return x - 20 / 255


@pytest.fixture
def net():
    return Darker()


@pytest.fixture(scope="module")
def ffmpeg():
    return pytest.importorskip("imageio_ffmpeg", reason="videos need the extra: pip install 'manas_lite[video]'")


def _video(ffmpeg, path, size=(48, 32), **options):
    """Five grey frames, brighter and brighter."""
    writer = ffmpeg.write_frames(str(path), size, fps=10, macro_block_size=1, **options)
    writer.send(None)
    for i in range(5):
        writer.send(np.full((size[1], size[0], 3), 100 + 20 * i, np.uint8))
    writer.close()
    return path


def test_video(tmp_path, net, ffmpeg):
    path = _video(ffmpeg, tmp_path / "in.mp4")
    out = derain_video(path, net, tmp_path / "new" / "out.mp4", say=lambda _: None)
    frames = ffmpeg.read_frames(str(out))
    facts = next(frames)
    means = [np.frombuffer(frame, np.uint8).mean() for frame in frames]
    assert tuple(facts["size"]) == (48, 32)
    assert facts["fps"] == 10
    assert means == pytest.approx([80, 100, 120, 140, 160], abs=3)
    assert [p.name for p in out.parent.iterdir()] == ["out.mp4"]
    with pytest.raises(FileExistsError, match="--overwrite"):
        derain_video(path, net, out)
    for ending in ("png", "webm"):  # webm holds no H.264
        with pytest.raises(ValueError, match=r"no ending of an H\.264 video"):
            derain_video(path, net, tmp_path / f"out.{ending}")
    with pytest.raises(FileNotFoundError, match="no such video"):
        derain_video(tmp_path / "gone.mp4", net, tmp_path / "x.mp4")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="reads no video"):
        derain_video(tmp_path / "bad.mp4", net, tmp_path / "x.mp4")


def test_a_video_of_odd_sides_becomes_even_and_that_is_said(tmp_path, net, ffmpeg):
    said = []
    path = _video(ffmpeg, tmp_path / "in.avi", (49, 33), codec="mpeg4")
    out = derain_video(path, net, tmp_path / "out.mp4", say=said.append)
    frames = ffmpeg.read_frames(str(out))
    assert tuple(next(frames)["size"]) == (50, 34)
    last = [np.frombuffer(frame, np.uint8).reshape(34, 50, 3)[-1, -1].mean() for frame in frames]
    assert last == pytest.approx([80, 100, 120, 140, 160], abs=4)  # no black border
    assert any("49x33 becomes 50x34" in line for line in said)


def test_a_video_that_ffmpeg_did_not_write_is_no_result(tmp_path, net, ffmpeg):
    """Its writer is silent about sound that the output cannot hold, and about a full disk."""
    sound = tmp_path / "sound.mkv"
    noise = ["-f", "lavfi", "-i", "sine=duration=0.5", "-c:a", "flac", str(sound)]
    subprocess.run([ffmpeg.get_ffmpeg_exe(), "-v", "error", *noise], check=True)
    path = _video(ffmpeg, tmp_path / "in.mkv", audio_path=str(sound), audio_codec="copy")
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match=r"of \d frames ffmpeg wrote 0 .*\.mkv takes any"):
        derain_video(path, net, tmp_path / "out" / "out.mov", say=lambda _: None)  # FLAC is none of .mov's
    assert list((tmp_path / "out").iterdir()) == []
    assert derain_video(path, net, tmp_path / "out" / "out.mkv", say=lambda _: None).exists()


def test_a_video_is_not_replaced_unless_told(tmp_path, net, ffmpeg):
    path = _video(ffmpeg, tmp_path / "in.mp4")
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="--in-place"):
        derain_video(path, net, path, overwrite=True)
    assert path.read_bytes() == before
    derain_video(path, net, path, in_place=True)
    assert path.read_bytes() != before


def test_a_video_with_a_long_name(tmp_path, net, ffmpeg):
    path = _video(ffmpeg, tmp_path / f"{'x' * 244}.mp4")
    assert derain_video(path, net, tmp_path / "out" / path.name).exists()
