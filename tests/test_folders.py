"""Strength, scale, time estimates, and folders with contact sheets."""

import io
import math
import os

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from manas_lite.__main__ import main
from manas_lite.draw.sheets import contact_sheet
from manas_lite.networks.nets import DerainNet
from manas_lite.photos.folders import SHEET, derain_folder, duration, warn_if_long
from manas_lite.photos.images import read_image, write_image
from manas_lite.photos.inference import derain, seconds_per_pixel
from manas_lite.photos.zoo import save_network
from manas_lite.runs.record import BusyError


class Darker(torch.nn.Module):
    """Takes 20 levels off everything: what strength and scale make of it is known. Remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape[2:]))
        return x - 20 / 255

    def __deepcopy__(self, memo):  # `derain` borrows a copy: let it remember here
        return self


@pytest.fixture
def net():
    return Darker()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_network(folder, DerainNet(tiny.GENOTYPE))
    return str(folder)


@pytest.mark.parametrize(("strength", "change"), [(0, 0), (0.5, 10), (1, 20), (1.5, 30)])
def test_strength_is_the_share_of_the_change(net, strength, change):
    picture = np.clip(tiny.picture(0, 20), 40, 255).astype(np.uint8)
    assert np.abs(picture - derain(picture, net, strength=strength).astype(int) - change).max() <= 1


def test_strength_stays_in_range(net):
    assert derain(np.zeros((8, 8, 3), np.uint8), net, strength=2).max() == 0


@pytest.mark.parametrize(("scale", "seen"), [(1, (60, 40)), (0.5, (30, 20)), (0.2, (12, 8)), (0.001, (1, 1))])
def test_scale_is_the_size_at_which_the_network_looks(net, scale, seen):
    """What it takes away is applied to the whole picture, whose detail stays: noise of single pixels here."""
    picture = np.random.default_rng(0).integers(40, 220, (60, 40, 3), dtype=np.uint8)
    result = derain(picture, net, scale=scale)
    assert net.seen == [seen]
    assert np.abs(picture.astype(int) - result - 20).max() <= 1


@pytest.mark.parametrize(
    ("choice", "says"), [({"strength": -0.1}, "strength"), ({"strength": 3}, "strength"), ({"scale": 0}, "scale"),
                         ({"scale": 1.5}, "scale"), ({"scale": float("nan")}, "scale")]
)  # fmt: skip
def test_bad_choices(net, choice, says):
    with pytest.raises(ValueError, match=says):
        derain(tiny.picture(0), net, **choice)


def test_estimate_goes_with_pixels_and_scale(tmp_path, net):
    write_image(tmp_path / "a.png", np.zeros((1000, 2000, 3), np.uint8))
    write_image(tmp_path / "b.png", np.zeros((1000, 1000, 3), np.uint8))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    pictures, said, asked = sorted(tmp_path.iterdir()), [], []

    def rate(*_):
        asked.append(1)
        return 1e-5

    assert warn_if_long(pictures, net, say=said.append, rate=rate) == pytest.approx(30)
    assert said == ["3 pictures, 3.0 megapixels: about 30 s here"]
    assert warn_if_long(pictures, net, scale=0.5, say=said.append, rate=rate) == pytest.approx(7.5)
    assert len(said) == 1  # shorter than anybody minds
    assert warn_if_long(pictures, net, scale=0.1, say=said.append, rate=rate) is None
    said.clear()
    for scale in (math.nan, math.inf, -1.0, 0.0):  # `derain` refuses it: no word on how long it takes
        assert warn_if_long(pictures, net, scale=scale, say=said.append, rate=rate) is None
    assert not said
    assert len(asked) == 2  # what is quick anywhere is not measured
    assert seconds_per_pixel(net, side=32) > 0
    assert net.seen[-1] == (32, 32)


def test_duration():
    assert [duration(s) for s in (0.2, 5, 42, 200, 9000)] == ["1 s", "5 s", "40 s", "3 min", "2.5 h"]


def test_folder_with_contact_sheet(tmp_path, net):
    for i in range(3):
        write_image(tmp_path / "in" / f"{i}.png" if i else _made(tmp_path / "in") / "0.png", tiny.picture(i, 40))
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    (tmp_path / "in" / "notes.txt").write_text("no picture either")
    said, complaints = [], []
    out, sheet = tmp_path / "out", tmp_path / "sheets" / "sheet.png"
    result = derain_folder(tmp_path / "in", out, net, sheet=sheet, say=said.append, complain=complaints.append)
    assert [p.name for p in result.written] == ["0.png", "1.png", "2.png"]
    assert [p.name for p, _ in result.failed] == ["bad.png"]
    assert str(result) == "3 of 4 pictures derained"
    assert len(complaints) == 1
    made = read_image(sheet)
    row = read_image(tmp_path / "in" / "0.png")
    assert _contains(made, row)
    assert _contains(made, read_image(out / "0.png"))
    with pytest.raises(FileExistsError, match="contact sheet"):
        derain_folder(tmp_path / "in", out, net, sheet=sheet, say=said.append)
    again = derain_folder(tmp_path / "in", out, net, say=said.append, complain=complaints.append)
    assert (len(again.written), len(again.failed)) == (0, 4)  # nothing is overwritten without being told
    with pytest.raises(ValueError, match="no image"):
        derain_folder(_made(tmp_path / "empty"), out, net)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        derain_folder(tmp_path / "nowhere", out, net)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), torch.OutOfMemoryError("full")]
)
def test_a_picture_too_large_for_the_memory_does_not_end_the_folder(tmp_path, error):
    for name, side in (("a.png", 20), ("b.png", 30), ("c.png", 20)):
        write_image(_made(tmp_path / "in") / name, tiny.picture(0, side))

    def net(fails_at):
        module = Darker()
        module.register_forward_pre_hook(lambda _, inputs: _raise_at(fails_at, inputs[0], error))
        return module

    complaints = []
    result = derain_folder(tmp_path / "in", tmp_path / "out", net(30), say=lambda _: None, complain=complaints.append)
    assert [p.name for p in result.written] == ["a.png", "c.png"]
    assert "b.png: needs more memory than there is" in complaints[0]


def test_errors_of_the_program_are_not_taken_for_bad_pictures(tmp_path):
    write_image(_made(tmp_path / "in") / "a.png", tiny.picture(0))
    broken = torch.nn.Conv2d(4, 3, 1)
    with pytest.raises(RuntimeError, match="channels"):
        derain_folder(tmp_path / "in", tmp_path / "out", broken)


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path, net):
    write_image(_made(tmp_path / "in") / "a.png", tiny.picture(0))
    (tmp_path / "file").write_text("")
    for sheet, error in (("sheet.xyz", ValueError), ("sheet.psd", ValueError), ("file/sheet.png", OSError)):
        with pytest.raises(error):
            derain_folder(tmp_path / "in", tmp_path / "out", net, sheet=tmp_path / sheet)
    assert net.seen == []


def test_a_long_contact_sheet_is_several_files(tmp_path, net, monkeypatch):
    monkeypatch.setattr("manas_lite.photos.folders.SHEET", 2)
    for i in range(5):
        write_image(_made(tmp_path / "in") / f"{i}.png", tiny.picture(i))
    sheet = tmp_path / "sheet.png"
    derain_folder(tmp_path / "in", tmp_path / "out", net, sheet=sheet)
    assert sorted(p.name for p in tmp_path.glob("sheet*")) == ["sheet-2.png", "sheet-3.png", "sheet.png"]
    assert _contains(read_image(tmp_path / "sheet-3.png"), tiny.picture(4))
    sheet.unlink()
    with pytest.raises(FileExistsError, match="sheet-2"):
        derain_folder(tmp_path / "in", tmp_path / "new", net, sheet=sheet)


def test_the_longest_contact_sheet_is_a_jpeg(tmp_path):
    tall = np.zeros((480, 320, 3), np.uint8)
    write_image(tmp_path / "sheet.jpg", contact_sheet([("a", [tall, tall])] * SHEET))


def test_a_name_that_the_terminal_cannot_show(tmp_path, weights, monkeypatch):
    folder = _made(tmp_path / "in")
    write_image(folder / "雨.png", tiny.picture(0))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "cp1252"))
    assert main(["derain", str(folder), str(tmp_path / "out"), "--weights", weights, "--threads", "1"]) == 0
    assert (tmp_path / "out" / "雨.png").exists()


def test_contact_sheet_refuses_what_it_cannot_show():
    with pytest.raises(ValueError, match="empty"):
        contact_sheet([])
    with pytest.raises(ValueError, match="'a' has 1 pictures for 2 columns"):
        contact_sheet([("a", [tiny.picture(0)])])


def test_command_line(tmp_path, weights, capsys):
    folder = _made(tmp_path / "in")
    write_image(folder / "a.png", tiny.picture(0, 40))
    use = ["--weights", weights, "--threads", "1"]
    sheet = tmp_path / "sheet.jpg"
    assert main(["derain", str(folder), str(tmp_path / "out"), *use, "--sheet", str(sheet), "--strength", "0.5"]) == 0
    assert sheet.exists()
    picture = str(folder / "a.png")
    assert main(["derain", picture, str(tmp_path / "b.png"), *use, "--scale", "0.5", "--no-location"]) == 0
    for wrong, message in (
        (["--scale", "0"], "scale"),
        (["--strength", "9"], "strength"),
        (["--sheet", str(sheet)], "--sheet is for a folder"),
    ):
        assert main(["derain", picture, str(tmp_path / "c.png"), *use, *wrong]) == 2
        assert message in capsys.readouterr().err


def _made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _raise_at(side, x, error):
    if x.shape[2] == side:
        raise error


def _contains(sheet, picture):
    """Whether a picture stands somewhere on a sheet, pixel for pixel."""
    height, width, _ = picture.shape
    first = (sheet == picture[0, 0]).all(2)
    for top, left in np.argwhere(first[: sheet.shape[0] - height + 1, : sheet.shape[1] - width + 1]):
        if np.array_equal(sheet[top : top + height, left : left + width], picture):
            return True
    return False


# -- hidden files, calls that were killed, originals --------------------------------------------------------------


@pytest.mark.parametrize("name", ["._0.png", ".0.png", "._IMG_1.JPG", ".hidden.tif", "~$0.png", "@0.png"])
def test_hidden_files_are_no_pictures(tmp_path, weights, capsys, name):
    write_image(_made(tmp_path / "in") / "0.png", tiny.picture(0))
    (tmp_path / "in" / name).write_bytes(b"\0\5\x16\7Mac OS X")
    use = ["--weights", weights, "--threads", "1"]
    assert main(["derain", str(tmp_path / "in"), str(tmp_path / "out"), *use]) == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["0.png"]
    assert f"1 hidden or system files are left out, such as {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["0.jfif", "0.JPE", "0.mpo", "0.pnm", "0.apng"])
def test_what_is_derained_as_a_file_is_derained_in_a_folder(tmp_path, net, name):
    kind = "PNG" if name.endswith("g") else "PPM" if name.endswith("pnm") else "JPEG"
    Image.fromarray(np.full((16, 16, 3), 200, np.uint8)).save(_made(tmp_path / "in") / name, kind)
    derain_folder(tmp_path / "in", tmp_path / "out", net, complain=pytest.fail)
    derain(tmp_path / "in" / name, net, output=tmp_path / f"one-{name}")
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / f"one-{name}").read_bytes()
    with Image.open(tmp_path / "out" / name) as image:
        assert (image.format, int(np.asarray(image).mean())) == (kind, 180)


def test_what_is_left_out_of_a_folder_is_counted_and_named(tmp_path, net):
    write_image(_made(tmp_path / "in") / "0.png", tiny.picture(0))
    for name in ("a.avif", "b.dib", "notes.txt", ".hidden.txt", "c"):
        (tmp_path / "in" / name).write_bytes(b"x")
    _made(tmp_path / "in" / "inner")
    told = []
    derain_folder(tmp_path / "in", tmp_path / "out", net, say=told.append)
    assert told[0] == "4 files are left out, whose endings are no picture's: a.avif; b.dib; c; notes.txt"
    (tmp_path / "in" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"holds no image .*, but 4 other files: a\.avif; b\.dib"):
        derain_folder(tmp_path / "in", tmp_path / "out", net)


class Killed(BaseException):
    """Ends a call where a signal would: no handler of the program sees it."""


def _killed_at(number, **call):
    """Derain a folder by a network that ends the process, so to say, at one of its calls."""
    net = call["net"]
    handle = net.register_forward_pre_hook(lambda *_: _raise_if(len(net.seen) + 1 == number, Killed()))
    with pytest.raises(Killed):
        derain_folder(**call)
    handle.remove()
    net.seen.clear()


def _raise_if(holds, error):
    if holds:
        raise error


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_in_two_calls_ends_as_in_one(tmp_path, number, overwrite):
    for i in range(4):
        write_image(_made(tmp_path / "in") / f"{i}.png", tiny.picture(i, 40))
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    ends = {}
    for place in ("once", "twice"):
        net = Darker()
        out = _made(tmp_path / place)
        write_image(out / "sheet-not.png", tiny.picture(9))
        call = {
            "folder": tmp_path / "in",
            "output": out,
            "net": net,
            "sheet": out / "sheet.png",
            "overwrite": overwrite,
        }
        call |= {"say": lambda _: None, "complain": lambda _: None, "strength": 0.5}
        if place == "twice":
            _killed_at(number, **call)
        result = derain_folder(**call)
        ends[place] = (
            [p.name for p in result.written],
            [p.name for p, _ in result.failed],
            {p.name: p.read_bytes() for p in out.iterdir()},
        )
    assert ends["once"] == ends["twice"]
    assert len(net.seen) == (4 if overwrite else 4 - (number - 1))  # what was done is not done again
    assert ends["once"][0] == [f"{i}.png" for i in range(4)]


def test_a_call_that_was_killed_at_its_sheets_goes_on(tmp_path, net, monkeypatch):
    monkeypatch.setattr("manas_lite.photos.folders.SHEET", 2)
    for i in range(3):
        write_image(_made(tmp_path / "in") / f"{i}.png", tiny.picture(i))
    call = {"folder": tmp_path / "in", "output": tmp_path / "out", "net": net, "sheet": tmp_path / "s.png"}
    written = []

    def killed(path, array):
        written.append(write_image(path, array))
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("manas_lite.photos.folders.write_image", killed)
        with pytest.raises(Killed):
            derain_folder(**call)
    assert written == [tmp_path / "s.png"]
    assert len(derain_folder(**call).written) == 3
    assert sorted(p.name for p in tmp_path.glob("s*.png")) == ["s-2.png", "s.png"]
    with pytest.raises(FileExistsError, match="contact sheet"):
        derain_folder(**call)


@pytest.mark.parametrize("change", ["settings", "network", "picture", "own file"])
def test_only_what_the_same_call_made_counts_as_done(tmp_path, change):
    for i in range(3):
        write_image(_made(tmp_path / "in") / f"{i}.png", tiny.picture(i, 40))
    out, complaints, net = _made(tmp_path / "out"), [], Darker()
    if change == "own file":
        write_image(out / "0.png", tiny.picture(5))
    call = {"folder": tmp_path / "in", "output": out, "net": net, "complain": complaints.append}
    _killed_at(3 if change != "own file" else 2, **call)
    complaints.clear()
    if change == "settings":
        call["strength"] = 0.3
    elif change == "network":
        net.register_buffer("more", torch.ones(1))
    elif change == "picture":
        write_image(tmp_path / "in" / "0.png", tiny.picture(7, 50))
    result = derain_folder(**call)
    kept = {"settings": 2, "network": 2, "picture": 1, "own file": 1}[change]
    assert len(result.failed) == len(complaints) == kept
    assert all("exists" in reason for _, reason in result.failed)


def test_the_originals_are_replaced_in_place_alone(tmp_path, net):
    folder = _made(tmp_path / "in")
    for i in range(3):
        write_image(folder / f"{i}.png", np.full((8, 8, 3), 100 + i, np.uint8))
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    other, one = tmp_path / "other", folder / "0.png"
    other.symlink_to(folder)
    os.link(one, tmp_path / "0.png")
    for overwrite in (False, True):
        for output in (folder, other, folder / ".." / "in"):
            with pytest.raises(FileExistsError, match="--in-place"):
                derain_folder(folder, output, net, overwrite=overwrite)
            with pytest.raises(FileExistsError, match="--in-place"):
                derain(one, net, output=output, overwrite=overwrite)
        with pytest.raises(FileExistsError, match="--in-place"):
            derain(one, net, output=tmp_path / "0.png", overwrite=overwrite)
    assert net.seen == []
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    with pytest.raises(FileExistsError, match="--overwrite"):
        derain(one, net, output=folder / "1.png", in_place=True)  # another picture than its own
    with pytest.raises(ValueError, match="sheet"):
        derain_folder(folder, folder, net, in_place=True, sheet=tmp_path / "s.png")
    _killed_at(3, folder=folder, output=folder, net=net, in_place=True)
    write_image(folder / "new.png", np.full((8, 8, 3), 200, np.uint8))
    assert len(derain_folder(folder, folder, net, in_place=True).written) == 4
    assert len(net.seen) == 2  # none of them twice
    assert {p.name: read_image(p).max() for p in folder.iterdir()} == {
        "0.png": 80,
        "1.png": 81,
        "2.png": 82,
        "new.png": 180,
    }


@pytest.mark.parametrize("killed", [False, True])
def test_a_file_of_several_names_is_derained_once_in_place(tmp_path, net, killed):
    folder = _made(tmp_path / "in")
    for i in range(2):
        write_image(folder / f"{i}.png", np.full((8, 8, 3), 100 + i, np.uint8))
    write_image(_made(tmp_path / "elsewhere") / "e.png", np.full((8, 8, 3), 150, np.uint8))
    os.link(folder / "0.png", folder / "hard.png")
    links = {"sym.png": "0.png", "a-sym.png": "1.png", "twice.png": "sym.png", "out.png": "../elsewhere/e.png"}
    for name, to in {**links, "dangling.png": "none.png", "loop.png": "loop.png"}.items():
        (folder / name).symlink_to(to)
    told, complaints = [], []
    call = {"say": told.append, "complain": complaints.append, "in_place": True}
    if killed:
        _killed_at(2, folder=folder, output=folder, net=net, **call)
        told.clear()
        complaints.clear()
    result = derain_folder(folder, folder, net, **call)
    assert [path.name for path in result.written] == ["0.png", "1.png", "hard.png"]
    levels = {p.name: read_image(p).max() for p in folder.iterdir() if p.exists()}
    assert levels == dict.fromkeys(["0.png", "hard.png", "sym.png", "twice.png"], 80) | {
        **dict.fromkeys(["1.png", "a-sym.png"], 81),
        "out.png": 150,
    }
    assert {name: os.readlink(folder / name) for name in links} == links
    assert [line for line in told if " is a link to " in line] == [
        f"{folder / 'a-sym.png'} is a link to 1.png, which is derained once",
        f"{folder / 'sym.png'} is a link to 0.png, which is derained once",
        f"{folder / 'twice.png'} is a link to 0.png, which is derained once",
    ]
    assert [path.name for path, _ in result.failed] == ["dangling.png", "loop.png", "out.png"]
    assert "e.png, no picture of this folder: derain that one itself" in complaints[2]


def test_a_link_to_the_picture_itself_stays_a_link(tmp_path, net):
    picture = write_image(tmp_path / "a.png", np.full((8, 8, 3), 100, np.uint8))
    link = tmp_path / "link.tga"
    link.symlink_to("a.png")
    for source, output in ((picture, link), (link, picture), (link, link)):
        with pytest.raises(FileExistsError, match="--in-place"):
            derain(source, net, output=output if output != link else picture, overwrite=True)
        derain(source, net, output=output, in_place=True)
    assert link.is_symlink()
    assert read_image(picture).max() == 40


@pytest.mark.parametrize(
    ("terminal", "answer", "option", "replaced"),
    [(True, "y\n", [], True), (True, "Yes\n", ["--overwrite"], True), (True, "\n", [], False), (True, "", [], False),
     (True, "n\n", ["--overwrite"], False), (False, "y\n", ["--overwrite"], False), (False, "", ["--in-place"], True)],
)  # fmt: skip
@pytest.mark.parametrize("what", ["file", "folder", "into folder"])
def test_who_sits_at_a_terminal_is_asked(
    tmp_path, weights, monkeypatch, capsys, terminal, answer, option, replaced, what
):
    folder = _made(tmp_path / "in")
    picture = write_image(folder / "a.png", tiny.picture(0, 40))
    before = picture.stat().st_ino, picture.read_bytes()
    stdin = io.StringIO(answer)
    stdin.isatty = lambda: terminal
    monkeypatch.setattr("sys.stdin", stdin)
    source, output = {"file": (picture, picture), "folder": (folder, folder), "into folder": (picture, folder)}[what]
    status = main(["derain", str(source), str(output), "--weights", weights, "--threads", "1", *option])
    assert status == (0 if replaced else 2)
    assert (picture.stat().st_ino != before[0]) == replaced
    assert replaced or picture.read_bytes() == before[1]
    said = capsys.readouterr().err
    assert ("Replace" in said) == (terminal and "--in-place" not in option)
    assert replaced or "--in-place" in said


@pytest.mark.parametrize("folder", [False, True])
def test_weights_that_give_no_picture_are_named(tmp_path, capsys, folder):
    net = DerainNet(tiny.GENOTYPE)
    for value in net.parameters():
        torch.nn.init.constant_(value, 1e30)  # each of them is a number, and what they make is none
    save_network(_made(tmp_path / "run"), net)
    for i in range(2):
        write_image(_made(tmp_path / "in") / f"{i}.png", tiny.picture(i, 40))
    source = tmp_path / "in" if folder else tmp_path / "in" / "0.png"
    output = tmp_path / "out" if folder else tmp_path / "out" / "0.png"
    assert main(["derain", str(source), str(output), "--weights", str(tmp_path / "run"), "--threads", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'run'}: the network answers with NaN")
    assert not list(tmp_path.glob("out/*.png"))


def test_one_process_at_a_time_replaces_the_pictures_of_a_folder(tmp_path, net):
    """The second would take what the first has derained for an original, and derain it once more."""
    folder = _made(tmp_path / "own")
    for i in range(3):
        write_image(folder / f"{i}.png", np.full((8, 8, 3), 200, np.uint8))
    told = []

    def meanwhile(line: str) -> None:
        if not told:
            with pytest.raises(BusyError, match="derained in place by another process") as found:
                derain_folder(folder, folder, net, in_place=True, say=lambda _: None)
            told.append(str(found.value))

    derain_folder(folder, folder, net, in_place=True, say=meanwhile)
    assert len(told) == 1
    assert {int(read_image(folder / f"{i}.png").mean()) for i in range(3)} == {180}
    assert sorted(p.name for p in folder.iterdir()) == ["0.png", "1.png", "2.png"]
