"""Run directories: manifests, logs, locks, and what survives a killed process."""

import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manas_lite.runs import environment, record
from manas_lite.runs.record import RunDirectory, hash_files, plain, read_json, read_log, to_json


@dataclasses.dataclass(frozen=True)
class Rates:
    rate: float = 0.01
    seed: int = 3


RECORD = {"settings": {"epochs": 2, "weights": Rates()}, "split": "abc"}


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(record, "LOCK_PATIENCE", 0.0)


# --- the manifest ---


def test_the_manifest_says_what_ran(tmp_path):
    with RunDirectory(tmp_path / "a" / "b", RECORD, kind="search") as run:
        run.note(scenes=["x", Path("y/z")])
        seconds = run.finish()
    found = read_json(tmp_path / "a" / "b" / "manifest.json")
    assert found["kind"] == "search"
    assert found["settings"] == {"epochs": 2, "weights": {"rate": 0.01, "seed": 3}}
    assert found["split"] == "abc"
    assert found["seeds"] == {"settings.weights.seed": 3}
    assert found["notes"] == {"scenes": ["x", "y/z"]}
    assert found["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["cpu"]["count"] == os.cpu_count()
    assert found["cpu"]["name"]
    assert found["threads"] == torch.get_num_threads()
    assert found["command"] == sys.argv
    assert found["peak_memory"]["resident_bytes"] > 50e6  # torch alone takes more
    assert found["seconds"] == seconds >= 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["finished"])
    assert found["stopped"] is None
    assert len(found["stretches"]) == 1


def test_seconds_accumulate_over_stretches(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(record.time, "monotonic", lambda: now[0])
    with RunDirectory(tmp_path, RECORD):
        now[0] += 5
    now[0] += 1000  # nothing runs meanwhile
    with RunDirectory(tmp_path, RECORD) as run:
        now[0] += 7
        assert run.finish() == 12
    found = read_json(tmp_path / "manifest.json")
    assert found["seconds"] == 12
    assert [s["seconds"] for s in found["stretches"]] == [5, 7]


def test_an_error_is_noted_and_a_next_stretch_clears_it(tmp_path):
    with pytest.raises(KeyboardInterrupt), RunDirectory(tmp_path, RECORD):
        raise KeyboardInterrupt
    assert read_json(tmp_path / "manifest.json")["stopped"] == "KeyboardInterrupt"
    with pytest.raises(ZeroDivisionError), RunDirectory(tmp_path, RECORD):
        1 / 0  # noqa: B018
    assert read_json(tmp_path / "manifest.json")["stopped"] == "ZeroDivisionError: division by zero"
    with RunDirectory(tmp_path, RECORD) as run:
        run.finish()
    assert read_json(tmp_path / "manifest.json")["stopped"] is None


def test_a_directory_of_other_settings_is_refused_and_left_alone(tmp_path):
    with RunDirectory(tmp_path, RECORD, kind="search") as run:
        run.log({"step": 0})
        run.finish()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    other = {"settings": {"epochs": 3, "weights": Rates(rate=0.1)}, "split": "abc"}
    message = (
        "was started with other settings: settings.epochs 3 here, 2 there; "
        "settings.weights.rate 0.1 here, 0.01 there. Use another name or runs_dir"
    )
    with pytest.raises(ValueError, match=re.escape(message)), RunDirectory(tmp_path, other, kind="search"):
        pass
    with pytest.raises(ValueError, match="split xyz here, abc there"):
        RunDirectory(tmp_path, {**RECORD, "split": "xyz"}, kind="search").__enter__()
    with pytest.raises(ValueError, match="extra 1 here, absent there"):
        RunDirectory(tmp_path, {**RECORD, "extra": 1}, kind="search").__enter__()
    with pytest.raises(ValueError, match="holds a run of kind 'search', not 'retrain'"):
        RunDirectory(tmp_path, RECORD, kind="retrain").__enter__()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    with RunDirectory(tmp_path, RECORD, kind="search"):  # the refusals left no lock
        pass


def test_a_record_cannot_hide_the_manifests_own_facts(tmp_path):
    with pytest.raises(ValueError, match="names of the manifest itself: git, seconds"):
        RunDirectory(tmp_path, {"git": 1, "seconds": 2}).__enter__()


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is no JSON .* delete it to start again"):
        RunDirectory(tmp_path, RECORD).__enter__()


# --- the log ---


def test_records_are_on_disk_as_soon_as_they_are_logged(tmp_path):
    with RunDirectory(tmp_path, RECORD) as run:
        run.log({"step": 0, "loss": torch.tensor(0.5), "alpha": torch.eye(2)})
        assert read_log(tmp_path) == [{"step": 0, "loss": 0.5, "alpha": [[1, 0], [0, 1]]}]
        run.log({"step": 1, "psnr": math.inf, "loss": np.float32("nan")})
        assert run.read_log()[1] == {"step": 1, "psnr": "Infinity", "loss": "NaN"}
    with RunDirectory(tmp_path, RECORD) as run:
        run.log({"step": 2})
        assert [r["step"] for r in run.read_log()] == [0, 1, 2]
        with pytest.raises(ValueError, match="has no integer 'step'"):
            run.log({"loss": 0.5})


def test_a_truncated_log_equals_the_uninterrupted_one(tmp_path):
    def write(run, start, end):
        for step in range(start, end):
            run.log({"kind": "step", "step": step, "loss": 1 / (step + 1), "name": "Größe\u2028"})
            if step % 2:
                run.log({"kind": "epoch", "step": step})

    with RunDirectory(tmp_path / "whole", RECORD) as run:
        write(run, 0, 10)
    with RunDirectory(tmp_path / "cut", RECORD) as run:
        write(run, 0, 7)
    with RunDirectory(tmp_path / "cut", RECORD) as run:
        run.truncate_log(4)  # the checkpoint was made after steps 0 .. 3
        write(run, 4, 8)
        run.truncate_log(8)  # nothing to drop
        run.truncate_log(6)
        write(run, 6, 10)
    assert (tmp_path / "cut/log.jsonl").read_bytes() == (tmp_path / "whole/log.jsonl").read_bytes()
    with RunDirectory(tmp_path / "cut", RECORD) as run:
        run.truncate_log(0)
        assert run.read_log() == []


def test_the_record_of_an_epoch_that_was_not_ended_is_dropped_and_its_step_stays(tmp_path):
    with RunDirectory(tmp_path, RECORD) as run:
        for kind, step in (("step", 0), ("step", 1), ("epoch", 1), ("step", 2), ("step", 3), ("epoch", 3), ("step", 4)):
            run.log({"kind": kind, "step": step})
        run.truncate_log(4, ended=False)
        assert [(r["kind"], r["step"]) for r in run.read_log()][3:] == [("step", 2), ("step", 3)]
        run.truncate_log(4, ended=False)
        run.truncate_log(2)
        assert [(r["kind"], r["step"]) for r in run.read_log()] == [("step", 0), ("step", 1), ("epoch", 1)]


def test_a_torn_last_line_is_left_out_and_repaired(tmp_path):
    with RunDirectory(tmp_path, RECORD) as run:
        run.log({"step": 0})
    log = tmp_path / "log.jsonl"
    log.write_bytes(log.read_bytes() + b'{"step": 1, "lo')
    assert read_log(tmp_path) == [{"step": 0}]
    with RunDirectory(tmp_path, RECORD) as run:
        run.log({"step": 1})
        assert run.read_log() == [{"step": 0}, {"step": 1}]
    log.write_text('{"step": 0}\nnonsense\n')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2: not a JSON record"):
        read_log(tmp_path)


def test_no_log_is_an_empty_log(tmp_path):
    assert read_log(tmp_path) == []


# --- killed processes, full disks, two writers ---

CHILD = """
import os, sys, time
from manas_lite.runs.record import RunDirectory
with RunDirectory(sys.argv[1], {"settings": 1}) as run:
    run.log({"step": 0})
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """Another process that holds tmp_path."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_two_processes_do_not_write_one_directory(tmp_path, writer, impatient):
    message = f"is being written by another run \\(process {writer.pid} on .*, since .*\\): wait for it"
    with pytest.raises(RuntimeError, match=message):
        RunDirectory(tmp_path, {"settings": 1}).__enter__()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    with RunDirectory(tmp_path, {"settings": 1}) as run:  # the lock of a dead process does not stand
        assert run.read_log() == [{"step": 0}]


def test_two_runs_of_one_process_do_not_write_one_directory(tmp_path, impatient):
    with RunDirectory(tmp_path, RECORD):
        with pytest.raises(RuntimeError, match="being written by another run"):
            RunDirectory(tmp_path, RECORD).__enter__()
        with RunDirectory(tmp_path / "inner", RECORD):  # runs nest, as in the demo
            pass


def test_leftovers_of_a_killed_write_are_removed(tmp_path):
    (tmp_path / ".checkpoint.safetensors.123.tmp").write_bytes(b"half")
    with RunDirectory(tmp_path, RECORD):
        assert not (tmp_path / ".checkpoint.safetensors.123.tmp").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_stops_the_log_with_its_last_whole_record(tmp_path):
    script = f"""
import resource
from manas_lite.runs.record import RunDirectory
try:
    with RunDirectory({str(tmp_path)!r}, {{"settings": 1}}) as run:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        for step in range(100):
            run.log({{"step": step, "text": "x" * 80}})
except OSError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    steps = [r["step"] for r in read_log(tmp_path)]
    assert steps == list(range(len(steps)))
    assert 40 < len(steps) < 60
    with RunDirectory(tmp_path, {"settings": 1}) as run:
        run.log({"step": len(steps)})
        assert run.read_log()[-1] == {"step": len(steps)}


# --- JSON ---

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@given(st.recursive(NUMBERS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_json_is_always_valid_and_floats_come_back(value):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    def floats(v):
        if isinstance(v, list):
            return [floats(i) for i in v]
        return {key: floats(i) for key, i in v.items()} if isinstance(v, dict) else repr(float(v))

    assert floats(json.loads(to_json(value), parse_constant=refuse)) == floats(value)


def test_plain_values():
    value = {
        1: (torch.tensor(2), np.int64(3), np.array([1.5, np.inf])),
        "path": Path("a") / "b",
        "rates": Rates(),
        "flag": np.bool_(True),
        "none": None,
    }
    expected = {
        "1": [2, 3, [1.5, "Infinity"]],
        "path": os.path.join("a", "b"),
        "rates": {"rate": 0.01, "seed": 3},
        "flag": True,
        "none": None,
    }
    assert plain(value) == expected
    with pytest.raises(TypeError, match="cannot write object"):
        to_json({"x": object()})


# --- hashes, git ---


def test_file_hashes_depend_on_names_sizes_and_contents_alone(tmp_path):
    (tmp_path / "sub").mkdir()
    a, b = tmp_path / "a.png", tmp_path / "sub" / "b.png"
    a.write_bytes(b"one")
    b.write_bytes(b"three")
    first = hash_files([a, b])
    assert first == hash_files([str(b), a])
    assert (first["files"], first["bytes"]) == (2, 8)
    os.utime(a, (0, 0))
    assert hash_files([a, b]) == first
    b.write_bytes(b"thrEe")
    changed = hash_files([a, b])
    b.write_bytes(b"three")
    b.rename(tmp_path / "sub" / "c.png")
    renamed = hash_files([a, tmp_path / "sub" / "c.png"])
    assert len({h["sha256"] for h in (first, changed, renamed)}) == 3
    with pytest.raises(FileNotFoundError):
        hash_files([tmp_path / "absent"])


def test_git_state_follows_the_code_and_ignores_foreign_clones(tmp_path):
    def git(*arguments):
        name = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *name, *arguments], check=True, capture_output=True)

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert environment.git_state(package) is None
    git("init", "-q")
    assert environment.git_state(package) is None  # in a clone, but not of it
    git("add", "package")
    git("commit", "-q", "-m", "x")
    state = environment.git_state(package)
    assert re.fullmatch("[0-9a-f]{40}", state["commit"])
    assert state["dirty"] is False
    (tmp_path / "notes.txt").write_text("outside the package")
    assert environment.git_state(package)["dirty"] is False
    (package / "new.py").write_text("")
    assert environment.git_state(package)["dirty"] is True
