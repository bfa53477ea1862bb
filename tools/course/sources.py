"""One source per notebook: text in jupytext's percent format -> the student's and the solution version.

An exercise is a cell tagged `exercise` whose answer stands between `# BEGIN SOLUTION` and `# END SOLUTION`. The
student's version raises NotImplementedError there. The head of every notebook (title, badge, what one learns, cost
table, set-up, versions) is made from course.yaml and costs.json, so that it is the same everywhere and cannot drift.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from tools.course import contents
from tools.course.contents import Notebook

__all__ = ["build", "clean", "compared", "cost_table", "dumps", "head", "same_parameters", "tags"]

Version = Literal["student", "solution"]

COMPARE = "# NBVAL_CHECK_OUTPUT"
SOLUTION = re.compile(r"^([ \t]*)# BEGIN SOLUTION\n.*?^[ \t]*# END SOLUTION\n?", re.MULTILINE | re.DOTALL)
MARKER = re.compile(r"^[ \t]*# (?:BEGIN|END) SOLUTION\n?", re.MULTILINE)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}

SET_UP = """\
# @title Set-up: run this first. It installs this package where it is missing, and nothing else.
import glob
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("manas_course") is None:
    address = "{requirement}"
    wheels = sorted(glob.glob("manas_lite-*.whl") + glob.glob("/content/drive/MyDrive/manas_lite-*.whl"))
    package = os.environ.get("MANAS_LITE_PACKAGE") or address or (wheels[-1] if wheels else "")
    if not package and "google.colab" in sys.modules:
        from google.colab import files

        package = next(iter(files.upload()), "")  # choose the file manas_lite-....whl
    if not package:
        raise SystemExit(
            "The package is missing: put its wheel (manas_lite-....whl, made by `make wheel`) beside this notebook or "
            "into your Google Drive, and run this cell again."
        )
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", package], capture_output=True, text=True)
    if done.returncode:
        reason = ([line for line in done.stderr.splitlines() if "ERROR" in line] or ["pip failed"])[-1]
        raise SystemExit(
            f"{{package}} was not installed ({{reason}}): check the network and run this cell again, or put the wheel "
            "beside this notebook."
        )"""

VERSIONS = """\
import manas_course as course

course.versions()"""


def build(notebook: Notebook, version: Version = "student", *, stored: Any = None) -> Any:
    """Make a notebook (nbformat 4) from its source.

    Args:
        notebook: which one.
        version: solution or student.
        stored: an earlier build, whose outputs of compared cells are kept where the code is the same.

    Raises:
        ValueError: where the source holds an exercise without a solution.
    """
    import jupytext
    from nbformat.v4 import new_notebook

    body = jupytext.reads(notebook.source, fmt="py:percent").cells
    cells = head(notebook) + [_versioned(cell, version) for cell in body]
    kept = _outputs(stored)
    for number, cell in enumerate(cells):
        cell["id"] = f"{notebook.number}-{number:03d}"
        cell["metadata"] = _metadata(cell)
        if cell.cell_type == "code":
            cell["outputs"] = kept.get(cell.source, [])
            cell["execution_count"] = _count(cell)
    return new_notebook(cells=cells, metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})


def dumps(notebook: Any) -> str:
    """Return the text of an .ipynb file, the same for equal notebooks."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def tags(cell: Any) -> list[str]:
    """Return the tags of a cell."""
    return list(cell.get("metadata", {}).get("tags", []))


def _metadata(cell: Any) -> dict[str, Any]:
    """Return what a committed cell holds beside its source: its tags, and that the set-up is folded away."""
    kept: dict[str, Any] = {"tags": tags(cell)} if tags(cell) else {}
    if "setup" in tags(cell):
        kept |= {"cellView": "form", "jupyter": {"source_hidden": True}}
    return kept


def clean(notebook: Any) -> Any:
    """Return a notebook without what running leaves behind.

    That is outputs (but compared ones), counts, and the metadata of papermill and of widgets, which break GitHub's
    rendering.
    """
    notebook.metadata = {
        key: notebook.metadata[key] for key in ("kernelspec", "language_info") if key in notebook.metadata
    }
    for cell in notebook.cells:
        cell["metadata"] = _metadata(cell)
        if cell.cell_type == "code":
            cell["outputs"] = [_bare(output) for output in cell.outputs] if compared(cell) else []
            cell["execution_count"] = _count(cell)
    return notebook


def compared(cell: Any) -> bool:
    """Return whether nbval compares this cell's output."""
    return cell.cell_type == "code" and COMPARE in cell.source


def head(notebook: Notebook) -> list[Any]:
    """Return the cells that every notebook begins with."""
    from nbformat.v4 import new_code_cell, new_markdown_cell

    home = contents.repository()
    parts = [f"# {notebook.number} · {notebook.title}", home.badge(notebook), notebook.purpose]
    title = "\n\n".join(part for part in parts if part)
    learn = "\n".join(f"* {item}" for item in notebook.learn)
    facts = f"**Afterwards you can**\n\n{learn}\n\n**Before**: {notebook.before}\n\n{cost_table(notebook)}"
    return [
        new_markdown_cell(title, metadata={"tags": ["title"]}),
        new_markdown_cell(facts, metadata={"tags": ["facts"]}),
        new_code_cell(SET_UP.format(requirement=home.requirement), metadata={"tags": ["setup"]}),
        new_code_cell(VERSIONS, metadata={"tags": ["versions"]}),
    ]


def measured_costs(notebook: Notebook) -> list[dict[str, Any]]:
    """Return what runs of a notebook cost, as the runner measured: preset, device, seconds, bytes, extrapolated."""
    path = contents.folder() / "costs.json"
    table = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return table.get(notebook.number, [])


def cost_table(notebook: Notebook) -> str:
    """Return minutes and memory, in Markdown, from measured runs alone; what was not measured has no row."""
    rows = measured_costs(notebook)
    if not rows:
        return "*Minutes and memory: not measured yet.*"
    lines = ["| preset | device | minutes | of computing | peak memory |", "|---|---|---|---|---|"]
    for row in rows:
        note = " *(extrapolated)*" if row.get("extrapolated") else ""
        memory = f"{row['bytes'] / 2**30:.1f} GiB" if row.get("bytes") else "–"
        computed = _minutes(row["cpu_seconds"]) if row.get("cpu_seconds") else "–"
        names = ", ".join(f"`{name}`" for name in same_parameters(notebook, row["preset"]))
        lines.append(f"| {names} | {row['device']} | {_minutes(row['seconds'])}{note} | {computed} | {memory} |")
    words = "Measured by the course's runner, kernel start included, on a machine busy with other work: "
    words += "*of computing* is what the processors spent on it, closer to what a quiet one takes."
    if any(row.get("extrapolated") for row in rows):
        words += " Extrapolated: seconds of computing a step, measured there, times the steps; memory is an estimate."
    if not any("core" not in row["device"] for row in rows):
        words += " No GPU has been measured yet."
    return "\n".join([*lines, "", words])


def same_parameters(notebook: Notebook, name: str) -> tuple[str, ...]:
    """Return the presets that set the same parameters in a notebook: what one costs, the others cost."""
    wanted = contents.preset(name, notebook)
    return tuple(other for other in contents.presets() if contents.preset(other, notebook) == wanted)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}" if seconds < 36000 else f"{seconds / 60:,.0f} ({seconds / 3600:,.0f} h)"


def _versioned(cell: Any, version: Version) -> Any:
    if "exercise" not in tags(cell):
        return cell
    if version == "solution":
        cell.source = MARKER.sub("", cell.source + "\n").rstrip("\n")
        return cell
    blank = r'\1raise NotImplementedError("your turn")\n'
    cell.source, count = SOLUTION.subn(blank, cell.source + "\n")
    if count != 1:
        raise ValueError(f"an exercise needs one solution between the two markers, this has {count}:\n{cell.source}")
    cell.source = cell.source.rstrip("\n")
    return cell


def _outputs(stored: Any) -> Mapping[str, list[Any]]:
    if stored is None:
        return {}
    return {cell.source: [_bare(output) for output in cell.outputs] for cell in stored.cells if compared(cell)}


def _count(cell: Any) -> int | None:
    """Return a count for a cell with outputs: nbval takes one without a count for a mistake."""
    return 1 if cell.outputs else None


def _bare(output: Any) -> Any:
    if "execution_count" in output:
        output["execution_count"] = None
    output.pop("transient", None)
    return output
