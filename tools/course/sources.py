"""One source per notebook: text in jupytext's percent format -> the student's and the solution version.

An exercise is a cell tagged `exercise` whose answer stands between `# BEGIN SOLUTION` and `# END SOLUTION`. The
student's version raises NotImplementedError there, and shows the answer folded away below the check. The head of every
notebook (title, badge, what one learns, costs, set-up, versions, where runs are kept) is made from course.yaml and
costs.json, so that it is the same everywhere and cannot drift.
"""

import json
import re
import textwrap
from collections.abc import Mapping
from typing import Any, Literal

from tools.course import contents
from tools.course.contents import Notebook

__all__ = ["build", "clean", "compared", "cost_table", "dumps", "head", "read", "same_parameters", "tags"]

Version = Literal["student", "solution"]

COMPARE = "# NBVAL_CHECK_OUTPUT"
SOLUTION = re.compile(r"^([ \t]*)# BEGIN SOLUTION\n.*?^[ \t]*# END SOLUTION\n?", re.MULTILINE | re.DOTALL)
SLIDES = re.compile(r"(^slides: .*\n)+\n*", re.MULTILINE)
MARKER = re.compile(r"^[ \t]*# (?:BEGIN|END) SOLUTION\n?", re.MULTILINE)
LASTING = ("kernelspec", "language_info", "accelerator", "colab")
"""What the metadata of a committed notebook may hold."""
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
# @title Versions, and the device that computes
import manas_course as course

course.versions()
course.runtime()"""

KEPT = """\
# @title Where runs are kept. On Colab it asks for your Google Drive; elsewhere it does nothing but say it.
course.keep_runs()"""

IMPORTS = "# @title Imports\n"
FOLDED = ("setup", "versions", "kept", "imports")
"""Tags of the cells whose code is folded away, on Colab and in JupyterLab."""

ANSWER = """\
<details><summary>Solution of exercise {number}. Try first, then click.</summary>

```python
{code}
```

</details>"""


def build(notebook: Notebook, version: Version = "student", *, stored: Any = None) -> Any:
    """Make a notebook (nbformat 4) from its source.

    Args:
        notebook: which one.
        version: solution or student.
        stored: an earlier build, whose outputs of compared cells are kept where the code is the same.

    Raises:
        ValueError: where the source holds an exercise without a solution.
    """
    from nbformat.v4 import new_notebook

    body = read(notebook)
    folds = _answers(body) if version == "student" else {}
    cells = head(notebook)
    for cell in body:
        cells.append(_versioned(cell, version))
        cells += [fold for tag, fold in folds.items() if f"check:{tag}" in tags(cell)]
    kept = _outputs(stored)
    for number, cell in enumerate(cells):
        cell["id"] = f"{notebook.number}-{number:03d}"
        cell["metadata"] = _metadata(cell)
        if cell.cell_type == "code":
            cell["outputs"] = kept.get(cell.source, [])
            cell["execution_count"] = _count(cell)
    return new_notebook(cells=cells, metadata=metadata(notebook))


def read(notebook: Notebook) -> list[Any]:
    """Return the cells of a notebook's source, without the lines that are for its slides."""
    import jupytext

    cells = jupytext.reads(notebook.source, fmt="py:percent").cells
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = SLIDES.sub("", cell.source + "\n").rstrip("\n")
    return cells


def metadata(notebook: Notebook) -> dict[str, Any]:
    """Return the metadata of a notebook; those that train ask Colab for a GPU."""
    plain: dict[str, Any] = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return plain | {"accelerator": "GPU", "colab": {"gpuType": "T4"}} if notebook.trains else plain


def dumps(notebook: Any) -> str:
    """Return the text of an .ipynb file, the same for equal notebooks."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def tags(cell: Any) -> list[str]:
    """Return the tags of a cell."""
    return list(cell.get("metadata", {}).get("tags", []))


def _metadata(cell: Any) -> dict[str, Any]:
    """Return what a committed cell holds beside its source: its tags, and whether it is folded away."""
    kept: dict[str, Any] = {"tags": tags(cell)} if tags(cell) else {}
    if set(FOLDED) & set(tags(cell)):
        kept |= {"cellView": "form", "jupyter": {"source_hidden": True}}
    return kept


def clean(notebook: Any) -> Any:
    """Return a notebook without what running leaves behind.

    That is outputs (but compared ones), counts, and the metadata of papermill and of widgets, which break GitHub's
    rendering.
    """
    notebook.metadata = {key: notebook.metadata[key] for key in LASTING if key in notebook.metadata}
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
    facts = f"**Afterwards you can**\n\n{learn}\n\n**Before**: {notebook.before}\n\n{costs(notebook)}"
    cells = [
        new_markdown_cell(title, metadata={"tags": ["title"]}),
        new_markdown_cell(facts, metadata={"tags": ["facts"]}),
        new_code_cell(SET_UP.format(requirement=home.requirement), metadata={"tags": ["setup"]}),
        new_code_cell(VERSIONS, metadata={"tags": ["versions"]}),
    ]
    if re.search(r"(?m)^runs_dir = ", notebook.source):
        cells.append(new_code_cell(KEPT, metadata={"tags": ["kept"]}))
    return cells


def measured_costs(notebook: Notebook) -> list[dict[str, Any]]:
    """Return what runs of a notebook cost, as the runner measured: preset, device, seconds, bytes, extrapolated."""
    path = contents.folder() / "costs.json"
    table = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return table.get(notebook.number, [])


def costs(notebook: Notebook) -> str:
    """Return what a notebook costs, in Markdown: one line, and a fold with each preset's parameters and its table."""
    shown = []
    for name in contents.presets():
        rows = [row for row in measured_costs(notebook) if row["preset"] in same_parameters(notebook, name)]
        if rows:
            row = next((row for row in rows if name == "gpu" and "core" not in row["device"]), rows[0])
            notes = [row["device"]] if "core" not in row["device"] else []
            notes += [word for word in ("estimated", "extrapolated") if row.get(word)]
            computed = _minutes(row.get("cpu_seconds", row["seconds"]))
            shown.append(f"`{name}` {computed}" + (f" ({', '.join(notes)})" if notes else ""))
    line = f"**Minutes of computing**: {', '.join(shown)}." if shown else "*Minutes and memory: not measured yet.*"
    sets = []
    for name in contents.presets():
        values = "; ".join(f"{key} = {json.dumps(value)}" for key, value in contents.preset(name, notebook).items())
        sets.append(f"* `{name}`: {f'`{values}`' if values else 'the parameters as they stand below'}")
    table = cost_table(notebook)
    fold = "\n".join(["<details><summary>What each preset sets, and what it costs</summary>", "", *sets, "", table])
    return f"{line}\n\n{fold}\n\n</details>"


def cost_table(notebook: Notebook) -> str:
    """Return minutes and memory, in Markdown, and say which of them were measured; what has no row was not."""
    rows = measured_costs(notebook)
    if not rows:
        return "*Minutes and memory: not measured yet.*"
    lines = ["| preset | device | minutes | of computing | peak memory |", "|---|---|---|---|---|"]
    for row in rows:
        note = " *(estimated)*" if row.get("estimated") else " *(extrapolated)*" if row.get("extrapolated") else ""
        memory = f"{row['bytes'] / 2**30:.1f} GiB" if row.get("bytes") else "–"
        computed = _minutes(row["cpu_seconds"]) if row.get("cpu_seconds") else "–"
        names = ", ".join(f"`{name}`" for name in same_parameters(notebook, row["preset"]))
        lines.append(f"| {names} | {row['device']} | {_minutes(row['seconds'])}{note} | {computed} | {memory} |")
    words = "Measured by the course's runner, kernel start included, on a machine busy with other work: "
    words += "*of computing* is what the processors spent on it, closer to what a quiet one takes."
    if any(row.get("extrapolated") for row in rows):
        words += " Extrapolated: seconds of computing a step, measured there, times the steps; memory is an estimate."
    if any(row.get("estimated") for row in rows):
        words += " Estimated: operations, multiply-adds and bytes of a step, counted, at the speeds of such a card."
    if not any("core" not in row["device"] and not row.get("estimated") for row in rows):
        words += " No GPU has been measured yet."
    return "\n".join([*lines, "", words])


def same_parameters(notebook: Notebook, name: str) -> tuple[str, ...]:
    """Return the presets that set the same parameters in a notebook: what one costs, the others cost."""
    wanted = contents.preset(name, notebook)
    return tuple(other for other in contents.presets() if contents.preset(other, notebook) == wanted)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}" if seconds < 36000 else f"{seconds / 60:,.0f} ({seconds / 3600:,.0f} h)"


def _answers(body: list[Any]) -> dict[str, Any]:
    """Return a folded cell with the solution of each exercise, by the exercise's name."""
    from nbformat.v4 import new_markdown_cell

    found: dict[str, Any] = {}
    for cell in body:
        if "exercise" in tags(cell) and (marked := SOLUTION.search(cell.source + "\n")):
            code = textwrap.dedent(MARKER.sub("", marked[0])).strip("\n")
            name = next(tag.partition(":")[2] for tag in tags(cell) if ":" in tag)
            text = ANSWER.format(number=len(found) + 1, code=code)
            found[name] = new_markdown_cell(text, metadata={"tags": ["answer"]})
    return found


def _versioned(cell: Any, version: Version) -> Any:
    if "imports" in tags(cell):
        cell.source = IMPORTS + cell.source
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
