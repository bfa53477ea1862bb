"""Every `python -m` door: a user's error is one line and status 2, without a traceback; Ctrl-C is 130."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WRONG: dict[str, list[str]] = {
    "manas_lite": ["evaluate", "--weights", "{gone}"],
    "manas_lite.data": ["check", "{gone}"],
    "manas_course.downstream": ["--weights", "{gone}"],
    "tools.course": ["grade", "{gone}", "--csv", "{gone}/marks.csv"],
}


def test_all_doors_are_here():
    found = {
        ".".join(path.relative_to(ROOT).parent.parts)
        for package in ("manas_lite", "manas_course", "tools")
        for path in (ROOT / package).rglob("__main__.py")
    }
    assert found == WRONG.keys()


@pytest.mark.parametrize("door", WRONG)
def test_a_users_error_is_one_line_and_status_2(door, tmp_path, capsys):
    main = importlib.import_module(f"{door}.__main__").main
    assert main([word.format(gone=tmp_path / "gone") for word in WRONG[door]]) == 2
    told = capsys.readouterr()
    assert re.search(r"^error: .*gone.*$", told.err, re.MULTILINE)
    assert "Traceback" not in told.err + told.out


@pytest.mark.parametrize("door", WRONG)
@pytest.mark.parametrize("wrong", [["--no-such-option"], ["no-such-command", "--x"]])
def test_wrong_options_are_status_2_too(door, wrong, capsys):
    main = importlib.import_module(f"{door}.__main__").main
    with pytest.raises(SystemExit) as stop:
        main(wrong)
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("door", "module", "name"),
    [
        ("manas_lite", "manas_lite.commands", "load"),
        ("manas_lite.data", "manas_lite.data.__main__", "list_folder"),
        ("manas_course.downstream", "manas_course.downstream.__main__", "load"),
        ("tools.course", "tools.course.grading", "grade_folder"),
    ],
)
def test_ctrl_c_is_status_130(door, module, name, tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module(module), name, stop)
    main = importlib.import_module(f"{door}.__main__").main
    assert main([word.format(gone=tmp_path / "gone") for word in WRONG[door]]) == 130
    assert "stopped" in capsys.readouterr().err
