"""Networks on a model hub, which is a fake one on loopback: up, down, and what can go wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fake_hub import FakeHub, fake_hub
from project import ROOT

from manas_lite import DerainNet, Genotype, SearchSpace, load
from manas_lite.photos.hub import Address, HubError
from manas_lite.photos.zoo import SHIPPED, WEIGHTS, fingerprint, push_to_hub, save_network, save_pretrained
from manas_lite.runs.checkpoint import CheckpointError, sha256_of

pytest.importorskip("huggingface_hub", reason="needs the extra: pip install 'manas_lite[hub]'")
SPACE = SearchSpace.preset("smoke")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with fake_hub(monkeypatch, tmp_path / "cache") as running:
        yield running


@pytest.fixture(scope="module")
def net() -> DerainNet:
    return DerainNet(Genotype.hand_made(SPACE), seed=5).eval()


def repository(net: DerainNet, folder: Path) -> dict[str, bytes]:
    """Return the files of a network's repository, by name."""
    save_pretrained(net, folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_what_is_pushed_comes_back(hub: FakeHub, net: DerainNet, capsys: pytest.CaptureFixture[str]) -> None:
    address = push_to_hub(net, "somebody/rain")
    sha = hub.repository("somebody/rain").find("main")
    assert address == f"hub:somebody/rain@{sha}"
    back = load(address)
    assert back.genotype == net.genotype
    assert fingerprint(back) == fingerprint(net)
    assert "for ever" not in capsys.readouterr().err  # a commit needs no word
    files = hub.repository("somebody/rain").commits[sha]
    card = json.loads(files["card.json"])
    assert card["genotype"] == net.genotype.id
    assert card["parameters"] == sum(p.numel() for p in net.parameters())
    head = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert (head["library_name"], head["pipeline_tag"]) == ("manas_lite", "image-to-image")
    assert "image-deraining" in head["tags"]


def test_a_shipped_model_goes_with_its_card(hub: FakeHub, tmp_path: Path) -> None:
    save_pretrained("rain-lite", tmp_path / "folder")
    kept, shipped = json.loads((tmp_path / "folder" / "card.json").read_text()), SHIPPED / "rain-lite"
    assert {**kept, "sha256": ""} == {**json.loads((shipped / "card.json").read_text()), "sha256": ""}
    assert kept["sha256"] == sha256_of(tmp_path / "folder" / WEIGHTS)
    assert (tmp_path / "folder" / "README.md").read_bytes() == (shipped / "README.md").read_bytes()
    assert fingerprint(load(tmp_path / "folder")) == fingerprint(load("rain-lite"))
    assert push_to_hub(tmp_path / "folder", "somebody/lite").startswith("hub:somebody/lite@")
    assert hub.repository("somebody/lite").commits.popitem()[1]["README.md"] == (shipped / "README.md").read_bytes()


@pytest.mark.parametrize("revision", ["", "@main", "@v1", "@SHORT"])
def test_a_revision_that_may_move_is_told_as_a_commit(
    hub: FakeHub, net: DerainNet, tmp_path: Path, capsys: pytest.CaptureFixture[str], revision: str
) -> None:
    there = hub.repository("a/net")
    first = there.commit(repository(net, tmp_path / "first"))
    there.branches["v1"] = first
    load("hub:a/net" + revision.replace("SHORT", first[:7]))
    assert f"hub:a/net@{first}" in capsys.readouterr().err
    second = there.commit(repository(DerainNet(net.genotype, seed=6), tmp_path / "second"))
    assert fingerprint(load(f"hub:a/net@{first}")) == fingerprint(net)
    assert fingerprint(load(f"hub:a/net@{second}")) != fingerprint(net)


def test_a_pinned_network_is_fetched_once_and_needs_no_hub_later(
    hub: FakeHub, net: DerainNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = hub.repository("a/net").commit({**repository(net, tmp_path / "r"), "large.zip": b"not wanted"})
    load(f"hub:a/net@{sha}")
    assert sorted(hub.fetched()) == ["card.json", "genotype.json", WEIGHTS]
    load(f"hub:a/net@{sha}")
    assert len(hub.fetched()) == 3
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert load(f"hub:a/net@{sha}").genotype == net.genotype


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("hub:a/net@v9", HubError, "no such revision"),
        ("hub:a/net@" + "0" * 40, HubError, "no such revision"),
        ("hub:a/other@main", HubError, "no such repository"),
        ("hub:net", ValueError, "expected hub:OWNER/NAME@REVISION"),
        ("hub:a/net@", ValueError, "expected hub:OWNER/NAME@REVISION"),
        ("hub:../../etc/passwd@x", ValueError, "expected hub:OWNER/NAME@REVISION"),
        ("hub:a/net@main#12", ValueError, "expected hub:OWNER/NAME@REVISION"),
        ("hub:a/net@main#" + "0" * 64, CheckpointError, "you state 0000"),
    ],
)
def test_a_wrong_address_is_one_line(
    hub: FakeHub, net: DerainNet, tmp_path: Path, text: str, error: type, told: str
) -> None:
    hub.repository("a/net").commit(repository(net, tmp_path / "r"))
    with pytest.raises(error, match=told) as found:
        load(text)
    assert "\n" not in str(found.value)
    sha256 = sha256_of(tmp_path / "r" / WEIGHTS)
    assert load(f"hub:a/net@main#{sha256}").genotype == net.genotype


@pytest.mark.parametrize("name", [WEIGHTS, "card.json"])
def test_a_missing_file_is_named(hub: FakeHub, net: DerainNet, tmp_path: Path, name: str) -> None:
    files = repository(net, tmp_path / "r")
    del files[name]
    hub.repository("a/net").commit(files)
    with pytest.raises(FileNotFoundError, match=rf"holds no {name}.*take another revision"):
        load("hub:a/net")


def damaged(files: dict[str, bytes], net: DerainNet, folder: Path) -> list[tuple[dict[str, bytes], str]]:
    """Return repositories that are wrong in several ways, and what is said of each."""
    weights, card = files[WEIGHTS], json.loads(files["card.json"])
    flipped = bytearray(weights)
    flipped[-3] ^= 1
    save_network(folder, DerainNet(Genotype.random(SPACE, 1)))
    other = {**card, "sha256": sha256_of(folder / WEIGHTS)}

    def carded(content: bytes) -> dict[str, bytes]:
        (folder / "x").write_bytes(content)
        return {WEIGHTS: content, "card.json": json.dumps({**card, "sha256": sha256_of(folder / "x")}).encode()}

    return [
        ({WEIGHTS: bytes(flipped)}, "its card states"),
        ({WEIGHTS: weights[:-100]}, "its card states"),
        (carded(weights[:-100]), "truncated or damaged"),
        (carded(b"PK\x03\x04" + b"0" * 500), "is a pickle"),
        (carded(b"<!doctype html><p>sign in"), "is a web page"),
        ({"card.json": b"{"}, "is no JSON"),
        ({"card.json": b'{"sha256": 5}'}, "sha256"),
        ({"card.json": b"[" * 90_000}, "nested too deep"),
        ({"card.json": json.dumps(other).encode(), WEIGHTS: (folder / WEIGHTS).read_bytes()}, "another genotype"),
        ({"genotype.json": b'{"format": 99}'}, "not a genotype"),
    ]


@pytest.mark.parametrize("number", range(10))
def test_what_comes_damaged_is_refused_in_one_line(hub: FakeHub, net: DerainNet, tmp_path: Path, number: int) -> None:
    (tmp_path / "other").mkdir()
    files = repository(net, tmp_path / "r")
    changed, told = damaged(files, net, tmp_path / "other")[number]
    hub.repository("a/net").commit({**files, **changed})
    with pytest.raises(ValueError, match=told) as found:
        load("hub:a/net@main")
    assert "\n" not in str(found.value)


def test_damage_on_the_way_is_refused(hub: FakeHub, net: DerainNet, tmp_path: Path) -> None:
    files = repository(net, tmp_path / "r")
    changed = bytearray(files[WEIGHTS])
    changed[-3] ^= 1
    hub.damage[WEIGHTS] = bytes(changed)
    hub.repository("a/net").commit(files)
    with pytest.raises(CheckpointError, match="its card states"):
        load("hub:a/net@main")


def test_no_network_is_one_line(hub: FakeHub, net: DerainNet, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"hub:a/net@main: the hub cannot be reached") as found:
        load("hub:a/net@main")
    assert "\n" not in str(found.value)
    with pytest.raises(HubError, match=r"^hub:a/net: the hub cannot be reached") as found:
        push_to_hub(net, "a/net")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("text", ["o/n@" + "a" * 40, "o/n@" + "A" * 40, "o/n@main", "o/n"])
def test_only_a_whole_commit_is_pinned(text: str) -> None:
    assert Address.parse(text).pinned == (text == "o/n@" + "a" * 40)
    assert str(Address.parse(text)) == f"hub:{text}"


def test_the_core_does_without_the_package(tmp_path: Path, net: DerainNet) -> None:
    save_network(tmp_path, net)
    script = f"""
import sys
from manas_lite import load
from manas_lite.data.registry import data_sets
load({str(tmp_path)!r}), load("rain-lite"), data_sets()
assert "huggingface_hub" not in sys.modules
sys.modules["huggingface_hub"] = None
try:
    load("hub:a/net@main")
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "a model hub needs an extra: pip install 'manas_lite[hub]'\n"


@pytest.mark.slow
def test_the_command_line_derains_with_a_network_of_the_hub(hub: FakeHub, net: DerainNet, tmp_path: Path) -> None:
    """A process of its own, told of the hub by its environment variable alone."""
    from PIL import Image

    sha = hub.repository("a/net").commit(repository(net, tmp_path / "r"))
    Image.new("RGB", (20, 16), (90, 100, 110)).save(tmp_path / "in.png")
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "manas_lite", "derain", str(tmp_path / "in.png"), str(tmp_path / "out.png")]

    def run(weights: str) -> subprocess.CompletedProcess[str]:
        whole = [*command, "--weights", weights, "--overwrite"]
        return subprocess.run(whole, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    done = run(f"hub:a/net@{sha}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.png").is_file()
    done = run("hub:a/net@nowhere")
    assert done.returncode == 2
    assert "no such revision" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
