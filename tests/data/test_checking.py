"""Bad files counted, the check report, and the command line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import background, rain_on, save, save_halves, save_pair
from skimage.metrics import peak_signal_noise_ratio

from manas_lite.data.__main__ import main
from manas_lite.data.checking import audit_listing, check
from manas_lite.data.layouts import list_folder
from manas_lite.photos.images import ImageError

# -- bad files ----------------------------------------------------------------------------------------------------


def spoil(kind: str, path: Path) -> None:
    """Turns a rainy picture into a bad or unusual one."""
    image = Image.open(path).convert("RGB")
    content = path.read_bytes()
    path.unlink()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no picture")
    elif kind == "folder":
        path.mkdir()
    elif kind == "animated":
        image.save(path, save_all=True, append_images=[image.rotate(90)])
    elif kind == "other size":
        image.resize((10, 12)).save(path)
    elif kind == "gone":
        pass
    elif kind == "greyscale":
        image.convert("L").save(path)
    elif kind == "palette":
        image.quantize(32).save(path)
    elif kind == "16-bit":
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(path)
    elif kind == "transparency":
        image.convert("RGBA").putalpha(128)
        image.convert("RGBA").save(path)
    elif kind == "CMYK":
        image.convert("CMYK").save(path, "JPEG")
    elif kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 3
        image.rotate(180).save(path, exif=exif)


def refused_by(kind: str) -> str:
    return {
        "truncated": "cannot be decoded",
        "empty": r"0 bytes",
        "text": "no image",
        "folder": "folder named like an image|has no rainy version",
        "animated": "2 frames",
        "other size": "is 10x12 but its clean picture",
        "gone": "has no rainy version",
    }[kind]


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "folder", "animated", "other size", "gone"])
def test_bad_file_is_refused_by_name_or_counted(pairs_folder, kind: str) -> None:
    folder = pairs_folder(4, name="雨 set")
    spoil(kind, folder / "input" / "2.png")
    listing = list_folder(folder)
    with pytest.raises((ImageError, ValueError), match=rf"2\.png.*({refused_by(kind)})"):
        audit_listing(listing, strict=True)
    kept, report = audit_listing(listing, strict=False)
    assert [pair.label for pair in kept.pairs] == ["0", "1", "3"]
    assert report.counts["refused"] == len(report.problems) >= 1
    assert "2.png" in str(report)
    assert report.counts["read"] >= 6


@pytest.mark.parametrize("kind", ["greyscale", "palette", "16-bit", "transparency", "CMYK", "rotated"])
def test_unusual_file_is_converted_and_counted(pairs_folder, kind: str) -> None:
    folder = pairs_folder(4)
    spoil(kind, folder / "input" / "2.png")
    kept, report = audit_listing(list_folder(folder), strict=True)
    assert len(kept.pairs) == 4
    assert report.counts[f"converted: {kind}"] == 1
    assert report.counts["read"] == 8


def test_a_file_is_counted_once_however_often_it_is_used(tmp_path: Path) -> None:
    for k in range(3):
        save_pair(tmp_path / f"rainy_image/1_{k}.png", tmp_path / "ground_truth/1.png", seed=1, rain=k)
    (tmp_path / "ground_truth/1.png").write_bytes(b"")
    kept, report = audit_listing(list_folder(tmp_path), strict=False)
    assert kept.pairs == []
    assert report.counts["refused"] == 1


# -- the report ---------------------------------------------------------------------------------------------------


def test_report_agrees_with_scikit_image(tmp_path: Path) -> None:
    scores = []
    for i in range(4):
        clean = background(i, 40 + 8 * (i % 2), 64)
        rainy = rain_on(clean, i)
        save(tmp_path / f"train/input/{i}.png", rainy)
        save(tmp_path / f"train/target/{i}.png", clean)
        luma = [(a / 255.0) @ np.array([65.481, 128.553, 24.966]) for a in (clean, rainy)]
        scores.append(
            (peak_signal_noise_ratio(*luma, data_range=255), peak_signal_noise_ratio(clean, rainy, data_range=255))
        )
    (part,) = check(tmp_path).parts
    assert (part.part, part.pairs, part.scenes) == ("train", 4, 4)
    assert part.sizes == {(40, 64): 2, (48, 64): 2}
    assert part.rains == {1: 4}
    assert (part.psnr_y, part.psnr_rgb) == pytest.approx(tuple(np.mean(scores, axis=0)), abs=1e-4)


def test_identical_pairs_do_not_make_the_mean_infinite(tmp_path: Path) -> None:
    for i in range(3):
        save_pair(tmp_path / f"input/{i}.png", tmp_path / f"target/{i}.png", seed=i)
    save(tmp_path / "input/9.png", background(9))
    save(tmp_path / "target/9.png", background(9))
    report = check(tmp_path)
    assert np.isfinite(report.parts[0].psnr_y)
    assert any("1 pair(s) are identical" in note for note in report.notes)


RAINY_INPUTS = [  # mean PSNR (Y, RGB) of the rainy pictures, as published with the samples
    ("Rain100L", "train", 200, 200, 26.71, 25.34),
    ("Rain100L", "test", 10, 8, 27.71, 26.36),
    ("Rain100H", "test", 10, 8, 13.67, 12.25),
    ("Rain800_groups", "train", 90, 35, 22.89, 21.44),
    ("SIRR_val", "val", 11, 11, 23.53, 22.06),
]


@pytest.fixture(scope="session")
def real_reports(real_data: Path):
    """Each real sample is checked once."""
    return {name: check(real_data / name) for name in {row[0] for row in RAINY_INPUTS}}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part", "pairs", "scenes", "y", "rgb"), RAINY_INPUTS)
def test_published_figures_of_real_samples(real_reports, name, part, pairs, scenes, y, rgb) -> None:
    found = next(p for p in real_reports[name].parts if p.part == part)
    assert (found.pairs, found.scenes) == (pairs, scenes)
    assert found.psnr_y == pytest.approx(y, abs=0.01)
    assert found.psnr_rgb == pytest.approx(rgb, abs=0.01)


# -- command line -------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_list_shows_every_set(capsys, tmp_path: Path) -> None:
    (tmp_path / "rain800").mkdir()
    status, out, _ = run(capsys, "list", "--root", tmp_path)
    assert status == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line and not line.startswith("name")}
    assert " Drive " in rows["did-mdn"]
    assert "12,000" in rows["did-mdn"]
    assert rows["did-mdn"].endswith(" yes             DID-MDN, also called Rain1200; none stated: research use")
    assert " yes       yes   Rain800; " in rows["rain800"]
    assert "by hand" in rows["rain800"]
    assert " Drive folder           no " in rows["rain100l-old"]
    assert " hub, not pinned        no " in rows["rain13k-hub"]
    assert " hub                    yes " in rows["hri"]


def test_get_prints_steps_or_fails_clearly(capsys, tmp_path: Path) -> None:
    status, out, err = run(capsys, "get", "did-mdn", "--manual", "--root", tmp_path)
    assert status == 0
    assert "1cMXWICiblTsRl1zjN8FizF5hXOpVOJz4" in out
    status, out, err = run(capsys, "get", "spa-data", "--root", tmp_path)
    assert status == 2
    assert err.startswith("error: spa-data cannot be downloaded automatically.")
    status, out, err = run(capsys, "get", "rain9000", "--root", tmp_path)
    assert status == 2
    assert "no set is called 'rain9000'" in err


def test_check_counts_bad_files_and_strict_stops(capsys, pairs_folder) -> None:
    folder = pairs_folder(5)
    (folder / "input/3.png").write_bytes(b"")
    status, out, _ = run(capsys, "check", folder)
    assert status == 0
    assert "1  refused" in out
    assert "3.png: is empty (0 bytes)" in out
    status, _, err = run(capsys, "check", "--strict", folder)
    assert status == 2
    assert "3.png: is empty" in err


def test_scenes_and_leaks(capsys, tmp_path: Path) -> None:
    for i in range(6):
        save_halves(tmp_path / f"a/{i}.png", seed=i // 2, rain=i)
    for i in range(2):
        save_halves(tmp_path / f"b/{i}.png", seed=i + 2, rain=9)
    status, out, _ = run(capsys, "scenes", tmp_path / "a")
    assert status == 0
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["2", "2", "2"]
    status, out, _ = run(capsys, "scenes", "--by", "name", tmp_path / "a")
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["1"] * 6
    status, out, _ = run(capsys, "leaks", tmp_path / "a", tmp_path / "b")
    assert status == 0
    assert "1 of 2 test pictures (1 of 2 backgrounds)" in out
    assert run(capsys, "leaks", "--fail", tmp_path / "a", tmp_path / "b")[0] == 2
    save_halves(tmp_path / "c/0.png", seed=7, rain=9)
    assert run(capsys, "leaks", "--fail", tmp_path / "a", tmp_path / "c")[0] == 0
    assert run(capsys, "leaks", "--fail", "--threshold", 1e-6, tmp_path / "a", tmp_path / "c")[0] == 2


def test_missing_folder_is_one_line_not_a_traceback(capsys, tmp_path: Path) -> None:
    for command in ("check", "scenes"):
        status, _, err = run(capsys, command, tmp_path / "gone")
        assert status == 2
        assert err == f"error: {tmp_path / 'gone'}: no such folder of pictures\n"


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
@pytest.mark.parametrize("name", [b"\xff\xfe", "\n🌧 \x1b".encode(), b"'\""])
def test_names_that_no_terminal_can_show_are_no_error(pairs_folder, repository: Path, name: bytes) -> None:
    folder = os.fsencode(pairs_folder(3))
    for side in (b"input", b"target"):
        os.rename(folder + b"/" + side + b"/0.png", folder + b"/" + side + b"/" + name + b".png")
    os.rename(folder, folder + name)
    os.remove(folder + name + b"/target/1.png")
    for command in ("check", "scenes"):
        arguments = [sys.executable, "-m", "manas_lite.data", command, folder + name]
        environment = {**os.environ, "PYTHONPATH": str(repository), "PYTHONUTF8": "1"}
        done = subprocess.run(arguments, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert b"1.png has no clean twin" in done.stdout + done.stderr


@pytest.mark.parametrize("command", [[], ["list"], ["get"], ["check"], ["scenes"], ["leaks"]])
def test_help(capsys, command: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert "usage: python -m manas_lite.data" in capsys.readouterr().out


def test_module_runs_from_any_folder(tmp_path: Path, repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "manas_lite.data", "list", "--root", str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(repository), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "raincityscapes" in done.stdout
    assert list(tmp_path.iterdir()) == []
