"""What is made from the sources: the student's notebooks, their badges and cost tables, and the table of the README."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manas_lite.runs.checkpoint import sha256_of
from tools.course import contents, sources
from tools.course.contents import Notebook
from tools.course.runner import Outcome

__all__ = ["record_cost", "record_run", "set_repository", "stale", "stamp", "strip"]

ADDRESSED = ("README.md", "README.zh-CN.md", "docs/install.md", "CONTRIBUTING.md", "CITATION.cff", "pyproject.toml")
"""Files of the root that state where the project lives."""
TABLE_START, TABLE_END = "<!-- table: made by `course stamp` -->", "<!-- end of table -->"


def stamp() -> list[Path]:
    """Write what differs from its sources, notebooks and the README's table; return the paths written."""
    written = []
    for path, text in _wanted().items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            written.append(path)
    return written


def stale() -> list[Path]:
    """Return the files that `stamp` would write."""
    return [p for p, text in _wanted().items() if not p.is_file() or p.read_text(encoding="utf-8") != text]


def set_repository(address: str, ref: str, wheel: Path) -> None:
    """Write into course.yaml where the project lives from now on; `stamp` then carries it everywhere.

    Args:
        address: OWNER/NAME at GitHub.
        ref: the tag of a release that holds the wheel.
        wheel: that file, whose hash the set-up cells check.

    Raises:
        ValueError: where one of them cannot be.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", address) or not re.fullmatch(r"[\w./-]+", ref):
        raise ValueError(f"repository {address!r} at {ref!r}: the address is OWNER/NAME, the ref a tag")
    if not (wheel.is_file() and re.fullmatch(r"manas_lite-[\w.]+-py3-none-any\.whl", wheel.name)):
        raise ValueError(f"{wheel} is not a wheel of this package: `make wheel` writes one into dist/")
    path = contents.folder() / contents.TABLE
    text = path.read_text(encoding="utf-8")
    facts = {"address": address, "ref": ref, "wheel": wheel.name, "sha256": sha256_of(wheel)}
    for key, value in facts.items():
        text, count = re.subn(rf"(?m)^  {key}: .*$", f'  {key}: "{value}"', text, count=1)
        if count != 1:
            raise ValueError(f"{path} has no line `  {key}: ...` under `repository`")
    path.write_text(text, encoding="utf-8")


def addressed(text: str, name: str) -> str:
    """Return the text of a file of the root with the project's address wherever one stands, or belongs."""
    url = contents.repository().url
    if name == "CITATION.cff":
        text = re.sub(r"(?m)^repository-code: .*\n", "", text)
        return text.replace("license: MIT\n", f'license: MIT\nrepository-code: "{url}"\n') if url else text
    if name == "pyproject.toml":
        text = re.sub(r"\[project\.urls\]\n(?:\w+ = .*\n)*\n", "", text)
        urls = f'[project.urls]\nRepository = "{url}"\n\n'
        return text.replace("[project.scripts]", f"{urls}[project.scripts]") if url else text
    place = f"{url} manas_lite" if url else "<this repository>"
    return re.sub(r"git clone .*? && cd manas_lite", f"git clone {place} && cd manas_lite", text)


def record_run(outcome: Outcome, notebook: Notebook) -> None:
    """Take a run's cost into costs.json, and at smoke size the outputs that nbval compares into the notebook."""
    import nbformat

    row = {
        "preset": outcome.preset,
        "device": outcome.device,
        "seconds": outcome.seconds,
        "cpu_seconds": outcome.cpu_seconds,
        "bytes": outcome.memory,
    }
    record_cost(notebook, row)
    if outcome.preset == "smoke":
        executed = nbformat.read(outcome.copy, as_version=4)
        notebook.path.write_text(sources.dumps(sources.build(notebook, stored=executed)), encoding="utf-8")


def record_cost(notebook: Notebook, row: Mapping[str, Any]) -> None:
    """Put a row into costs.json, in place of an earlier one of that device and preset, or of one that sets the same."""
    path = contents.folder() / "costs.json"
    table: dict[str, list[Mapping[str, Any]]] = json.loads(path.read_text()) if path.is_file() else {}
    earlier = table.get(notebook.number, [])
    same = sources.same_parameters(notebook, row["preset"])
    kept = [old for old in earlier if old["preset"] not in same or old["device"] != row["device"]]
    order = contents.presets()
    table[notebook.number] = sorted([*kept, row], key=lambda r: (order.index(r["preset"]), r["device"]))
    path.write_text(json.dumps(dict(sorted(table.items())), indent=1) + "\n", encoding="utf-8")


def strip(path: Path, *, answers: bool = True) -> None:
    """Make a notebook file fit to be committed, as `sources.clean` does; without the folded solutions on request."""
    import nbformat

    notebook = sources.clean(nbformat.read(path, as_version=4))
    if not answers:
        notebook.cells = [cell for cell in notebook.cells if "answer" not in sources.tags(cell)]
    path.write_text(sources.dumps(notebook), encoding="utf-8")


def _wanted() -> dict[Path, str]:
    import nbformat

    wanted = {}
    for notebook in contents.notebooks():
        stored = nbformat.read(notebook.path, as_version=4) if notebook.path.is_file() else None
        wanted[notebook.path] = sources.dumps(sources.build(notebook, stored=stored))
    readme = contents.folder() / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(TABLE_START)
    _, _, after = rest.partition(TABLE_END)
    wanted[readme] = f"{before}{TABLE_START}\n{_table()}\n{TABLE_END}{after}"
    for name in ADDRESSED:
        path = contents.folder().parent / name
        if path.is_file():
            wanted[path] = addressed(path.read_text(encoding="utf-8"), name)
    return wanted


def _table() -> str:
    lines = [
        "| notebook | goal | minutes of computing (teach, CPU) | minutes (gpu, T4, estimated) | exercises | next |",
        "|---|---|---|---|---|---|",
    ]
    for notebook in contents.notebooks():
        lines.append(
            f"| [{notebook.number} {notebook.title}]({notebook.path.name}) | {notebook.purpose} "
            f"| {_minutes(notebook, 'teach')} | {_minutes(notebook, 'gpu')} "
            f"| {len(notebook.exercises) or '–'} | {notebook.next} |"
        )
    return "\n".join(lines)


def _minutes(notebook: Notebook, preset: str) -> str:
    """Return the minutes of a notebook at a preset: on a card where it trains at `gpu`, else on a processor."""
    same, on_card = sources.same_parameters(notebook, preset), preset == "gpu" and notebook.trains
    rows = [r for r in sources.measured_costs(notebook) if r["preset"] in same and ("cores" in r["device"]) != on_card]
    return f"{rows[0].get('cpu_seconds', rows[0]['seconds']) / 60:.1f}" if rows else "not measured yet"
