"""Archives made by strangers."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from samples import zipped

from manas_lite.data.unpack import ArchiveError, is_archive, unpack_archive

LIMIT = 10_000_000


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def tarred(*members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_with_mode(name: str, mode: int, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "make", [zipped, lambda files: tarred(*files.items()), lambda f: tarred(*f.items(), mode="w:xz")]
)
def test_files_arrive_whole(tmp_path: Path, make) -> None:
    files = {"train/a.bin": b"a" * 3_000_000, "train/雨/b.bin": b"", "c": b"c"}
    into = unpack_archive(write(tmp_path / "x.zip", make(files)), tmp_path / "set", LIMIT)
    assert {p.relative_to(into).as_posix(): p.read_bytes() for p in into.rglob("*") if p.is_file()} == files
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set", "x.zip"]


def test_two_archives_fill_one_folder(tmp_path: Path) -> None:
    for name, files in {"a": {"train/1": b"1", "both/x": b"x"}, "b": {"test/2": b"2", "both/y": b"y"}}.items():
        unpack_archive(write(tmp_path / name, zipped(files)), tmp_path / "set", LIMIT)
    assert sorted(p.name for p in (tmp_path / "set").rglob("*") if p.is_file()) == ["1", "2", "x", "y"]


HOSTILE = {
    "parent": (zipped({"../evil": b"x"}), "outside the folder"),
    "deep parent": (zipped({"a/../../evil": b"x"}), "outside the folder"),
    "backslash": (zipped({"..\\evil": b"x"}), "outside the folder"),
    "absolute": (zipped({"/evil": b"x"}), "outside the folder"),
    "drive": (zipped({"C:/evil": b"x"}), "outside the folder"),
    "zip link": (zip_with_mode("link", stat.S_IFLNK | 0o777, b"/etc"), "link or device"),
    "tar parent": (tarred(("../evil", b"x")), "outside the folder"),
    "tar absolute": (tarred(("/evil", b"x")), "outside the folder"),
    "tar link": (tarred(special("link", tarfile.SYMTYPE, "/etc")), "link or device"),
    "tar hard link": (tarred(("a", b"x"), special("b", tarfile.LNKTYPE, "a")), "link or device"),
    "tar device": (tarred(special("null", tarfile.CHRTYPE)), "link or device"),
    "bomb": (zipped({f"{i}": b"\0" * 3_000_000 for i in range(4)}), "12,000,000 bytes, more than the 10,000,000"),
    "tar bomb": (tarred(*((f"{i}", b"\0" * 3_000_000) for i in range(4))), "more than the 10,000,000"),
    "text": (b"I am no archive at all", "neither a zip nor a tar"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archive_is_refused_and_writes_nothing(tmp_path: Path, kind: str) -> None:
    content, says = HOSTILE[kind]
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(ArchiveError, match=says) as caught:
        unpack_archive(write(home / "x.zip", content), home / "sets" / "set", LIMIT)
    assert str(home / "x.zip") in str(caught.value)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["x.zip"]
    assert not (home / "sets" / "set").exists()


def test_archive_that_lies_about_its_size_is_stopped(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"\0" * 5_000_000)
    content = buffer.getvalue().replace((5_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert content != buffer.getvalue()
    with pytest.raises(ArchiveError):
        unpack_archive(write(tmp_path / "x.zip", content), tmp_path / "set", 1000)
    assert not (tmp_path / "set").exists()


def test_damaged_member_leaves_nothing_half_filled(tmp_path: Path) -> None:
    content = bytearray(zipped({"a": b"a" * 1000, "b": b"b" * 1000}))
    content[content.index(b"bbbb") + 500] ^= 1
    with pytest.raises(ArchiveError, match=r"broken.*download it again"):
        unpack_archive(write(tmp_path / "x.zip", bytes(content)), tmp_path / "set", LIMIT)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.zip"]


def test_truncated_tar_is_refused(tmp_path: Path) -> None:
    content = tarred(("a", bytes(range(256)) * 4000), mode="w")
    with pytest.raises(ArchiveError):
        unpack_archive(write(tmp_path / "x.tar", content[: len(content) // 2]), tmp_path / "set", LIMIT)
    assert not (tmp_path / "set").exists()


def test_too_small_a_disk_is_told_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(OSError, match=r"needs 5 bytes below .*, where 1,000 are free"):
        unpack_archive(write(tmp_path / "x.zip", zipped({"a": b"12345"})), tmp_path / "set", LIMIT)


def test_archives_are_known_by_their_bytes(tmp_path: Path) -> None:
    assert is_archive(write(tmp_path / "a.jpg", zipped({"a": b""})))
    assert is_archive(write(tmp_path / "b", tarred(("a", b""))))
    assert not is_archive(write(tmp_path / "c.zip", b"<html>"))
