"""What is made from the sources: the student's notebooks, their badges and cost tables, and the table of the README."""

import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manas_lite.runs.checkpoint import sha256_of
from tools.course import contents, runner, sources, translations
from tools.course.contents import Notebook
from tools.course.runner import Outcome

__all__ = [
    "keep_picture",
    "outdated",
    "record_cost",
    "record_run",
    "set_repository",
    "stale",
    "stamp",
    "strip",
    "student",
]

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


def outdated() -> list[str]:
    """Return what is to be done by hand before notebooks in other languages can be made, a sentence for each text."""
    return [line for notebook, _, file in translations.files() for line in translations.outdated(notebook, file)]


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
        notebook.path.write_text(sources.dumps(student(notebook, executed)), encoding="utf-8")


def student(notebook: Notebook, stored: Any = None) -> Any:
    """Return the student's notebook (nbformat) as it is committed: below its title other languages, and a picture.

    A notebook is committed without outputs, so that a reader on a code host would see no picture otherwise.
    """
    built = sources.build(notebook, stored=stored)
    for other, language, _ in translations.files():
        if other.stem == notebook.stem:
            name = translations.path_of(notebook, language).name
            built.cells[0].source += f"\n\n[{translations.NAMES[language]}]({name})"
    if notebook.picture:
        place = Path(os.path.relpath(notebook.picture_path, notebook.path.parent)).as_posix()
        built.cells[0].source += f"\n\n![{notebook.picture['alt']}]({place})"
    return built


def keep_picture(notebook: Notebook, copies: Path) -> Path:
    """Make the file of a notebook's picture, light and at most 900 pixels wide, and return its path.

    Args:
        notebook: which one; its row `picture` says what the picture is made of.
        copies: folder of executed copies, where that is one of the pictures that a run shows.

    Raises:
        ValueError: where the row names no picture that there is.
    """
    from PIL import Image

    of = notebook.picture.get("of", "")
    if of.isdecimal():
        shown = runner.pictures(copies / f"{notebook.stem}.ipynb")
        if not 0 < int(of) <= len(shown):
            raise ValueError(f"{copies} holds no copy of {notebook.stem} with a picture {of}: it shows {len(shown)}")
        source: Any = io.BytesIO(shown[int(of) - 1])
    else:
        source = contents.folder().parent / "figures" / of
        if not source.is_file():
            raise ValueError(f"{notebook.stem}: `picture: {{of: {of}}}` is neither a number nor a file of figures/")
    image = Image.open(source).convert("RGB")
    image.thumbnail((900, 700))
    notebook.picture_path.parent.mkdir(parents=True, exist_ok=True)
    image.save(notebook.picture_path, quality=80, method=6)
    return notebook.picture_path


def record_cost(notebook: Notebook, row: Mapping[str, Any]) -> None:
    """Put a row into costs.json, in place of an earlier one of that device and preset, or of one that sets the same."""
    path = contents.folder() / "costs.json"
    table: dict[str, list[Mapping[str, Any]]] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
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
    wanted = {}
    for notebook in contents.notebooks():
        wanted[notebook.path] = sources.dumps(student(notebook, _stored(notebook.path)))
    for notebook, language, file in translations.files():
        path = translations.path_of(notebook, language)
        if not translations.outdated(notebook, file):
            wanted[path] = sources.dumps(translations.build(notebook, file, _stored(notebook.path)))
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


def _stored(path: Path) -> Any:
    """Return a notebook file (nbformat), or None where there is none yet."""
    import nbformat

    return nbformat.read(path, as_version=4) if path.is_file() else None


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
