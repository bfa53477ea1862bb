"""Runs of notebooks as an HTML page: links, times, metrics, thumbnails."""

import html
import io
from pathlib import Path
from typing import Any

from manas_lite.runs.checkpoint import write_atomic
from manas_lite.runs.record import read_json
from tools.course import contents, sources
from tools.course.runner import pictures

__all__ = ["render", "write_index"]

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; color: #222; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #ddd; padding: .5rem; text-align: left }
td { vertical-align: top } img { max-width: 260px; max-height: 170px } .failed { color: #b00020; font-weight: 600 }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .6rem; margin: 0; font-size: 13px } dd { margin: 0 }
"""


def render(copy: Path) -> Path:
    """Write an executed copy as HTML beside it, and its thumbnail as PNG; return the path of the HTML."""
    import nbformat
    from nbconvert import HTMLExporter
    from PIL import Image
    from traitlets.config import Config

    folded = Config({"TagRemovePreprocessor": {"enabled": True, "remove_input_tags": set(sources.FOLDED)}})
    body, _ = HTMLExporter(config=folded).from_notebook_node(nbformat.read(copy, as_version=4))
    page = copy.with_suffix(".html")
    shown = pictures(copy)
    if shown:
        image = Image.open(io.BytesIO(shown[-1]), formats=["PNG"]).convert("RGB")
        image.thumbnail((520, 340))
        image.save(copy.with_suffix(".png"))
    write_atomic(page, body.encode())  # last, and whole: a page that is there says that nothing is to be done
    return page


def write_index(out: str | Path) -> Path:
    """Write `out`/index.html over every run whose facts (NAME.json) lie in `out`; return its path."""
    folder = Path(out)
    facts = [read_json(path) for path in sorted(folder.glob("*.json"))]
    facts = [fact for fact in facts if {"notebook", "status", "seconds"} <= set(fact)]
    if not facts:
        raise FileNotFoundError(f"{folder} holds no facts of runs (NAME.json): `course run` writes them")
    rows = "\n".join(_row(folder, fact) for fact in facts)
    failed = sum(fact["status"] != "done" for fact in facts)
    total = sum(fact["seconds"] for fact in facts)
    computed = sum(fact.get("cpu_seconds", 0.0) for fact in facts)
    verdict = f"<span class=failed>{failed} failed</span>" if failed else "all done"
    devices = ", ".join(sorted({fact["device"] for fact in facts}))
    page = folder / "index.html"
    page.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>manas_lite: course</title><style>{STYLE}</style>"
        f"<h1>The course, executed</h1><p>{len(facts)} notebooks, {verdict}, {total / 60:.1f} minutes, "
        f"{computed / 60:.1f} of computing, on {html.escape(devices)}.</p>"
        f"<table><tr><th>notebook</th><th>run</th><th>metrics</th><th></th></tr>{rows}"
        "</table></html>\n",
        encoding="utf-8",
    )
    return page


def _row(folder: Path, fact: dict[str, Any]) -> str:
    name = Path(fact["copy"]).stem
    notebook = contents.find(fact["notebook"])
    page = f"{name}.html" if (folder / f"{name}.html").is_file() else f"{name}.ipynb"
    picture = f"<a href='{page}'><img src='{name}.png' alt='the notebook’s picture'></a>"
    state = "done" if fact["status"] == "done" else f"<span class=failed>failed</span>: {html.escape(fact['reason'])}"
    passed = f"{sum(fact['checks'].values())} of {len(fact['checks'])} exercises pass" if fact["checks"] else ""
    memory = f"{fact['memory'] / 2**30:.1f} GiB" if fact["memory"] else ""
    metrics = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(_shown(v))}</dd>" for k, v in fact["metrics"].items())
    return (
        f"<tr><td><a href='{page}'>{notebook.number} · {html.escape(notebook.title)}</a><br>"
        f"<small>{html.escape(notebook.purpose)}</small></td>"
        f"<td>{state}<br>{fact['preset']}, {fact['seconds']:.0f} s, {memory}<br>{passed}</td>"
        f"<td><dl>{metrics}</dl></td><td>{picture if (folder / f'{name}.png').is_file() else ''}</td></tr>"
    )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
