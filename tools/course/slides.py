"""Slides of a notebook, made from its executed copy: for the lecturer who teaches from the same source.

A section (`## `) is a slide: its heading, first paragraph, lists, tables and formulas, with its first picture
beside them. Each further picture is a slide of its own; exercises are slides with their blank. What a section says
besides, and every "What you should see", goes into the speaker's notes (key S). A cell tagged `slides:skip` in its
source is left out.

The page holds reveal.js and needs no network. Only formulas are set by MathJax from the web; without it they are shown
as they are written.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manas_lite.runs.record import read_json
from tools.course import sources
from tools.course.contents import Notebook

__all__ = ["deck", "unfit", "write_slides"]

CHANGING = {"facts", "injected-parameters"}  # cells that differ between runs of one source
UNSPOKEN = {"facts", "setup", "versions", "parameters", "injected-parameters", "imports", "check", "record"}
SKIPPED_SECTIONS = ("## Exercises", "## Summary", "## From files")
BARE = "slides:output-only"
LONGEST = 14  # lines of printed text that a slide holds
REVEAL = Path(__file__).parent / "reveal"  # reveal.js 4.6.1, with its licence
STYLE = """<style>
:root { --jp-code-font-size: 24px; --jp-ui-font-size1: 24px; --jp-content-font-size1: 28px }
.reveal, .reveal .jp-RenderedHTMLCommon, .reveal .jp-RenderedHTMLCommon table { font-size: 28px }
.reveal h1 { font-size: 1.9em; text-transform: none }
.reveal h2 { font-size: 1.4em; text-transform: none }
.reveal pre, .reveal pre code, .reveal .highlight { font-size: 24px; line-height: 1.25 }
.reveal section.beside > section, .reveal section.beside:not(:has(section)) { display: grid !important;
  grid-template-columns: 1fr 1.2fr; column-gap: 1em; align-content: start }
.reveal section.beside .words { grid-column: 1 }
.reveal section.beside .picture { grid-column: 2; grid-row: 1 / span 40 }
.reveal .slides { text-align: left } .reveal img { max-height: 62vh; width: auto }
.reveal .jp-OutputArea-prompt, .reveal .jp-InputPrompt { display: none }
</style>"""


MATHJAX = """<script>
window.MathJax = { tex: { inlineMath: [["$", "$"], ["\\\\(", "\\\\)"]] } };
</script>
<script async src="https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-chtml.js"></script>"""
START = """
for (const slide of document.querySelectorAll(".slides section")) {
  if (slide.querySelector(":scope > section")) continue;
  const parts = [...slide.children].filter((part) => part.tagName !== "ASIDE");
  const pictures = parts.filter((part) => part.querySelector("img"));
  if (pictures.length && pictures.length < parts.length) {
    slide.classList.add("beside");
    for (const part of parts) {
      part.classList.add(pictures.includes(part) || part.matches("h1, h2") ? "picture" : "words");
    }
  }
}
Reveal.initialize({ controls: true, progress: true, history: true, slideNumber: "c/t", width: 1280, height: 720,
  plugins: [RevealNotes] });
"""


def write_slides(notebook: Notebook, executed: Path, page: Path) -> Path:
    """Write the slides of an executed copy as an HTML page that holds its reveal.js; return the page's path."""
    import nbformat
    from nbconvert import SlidesExporter
    from traitlets.config import Config

    config = Config({"TagRemovePreprocessor": {"enabled": True, "remove_input_tags": {BARE}}})
    exporter = SlidesExporter(config=config, reveal_scroll=True, reveal_number="c/t")
    body, _ = exporter.from_notebook_node(deck(notebook, nbformat.read(executed, as_version=4)))
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(_whole(body), encoding="utf-8")
    return page


def _whole(body: str) -> str:
    """Return a page of nbconvert with reveal.js in it, in place of what it would load from the web."""
    sheets = "".join(f"<style>{_part(name)}</style>" for name in ("reveal.css", "white.css"))
    scripts = "".join(f"<script>{_part(name)}</script>" for name in ("reveal.js", "notes.js"))
    body = re.sub(r"<script[^>]*\ssrc=\"http[^>]*>\s*</script>|<link[^>]*\shref=\"http[^>]*>", "", body)
    body = re.sub(r"<script type=\"module\">.*?</script>", "", body, flags=re.DOTALL)
    head, _, foot = body.rpartition("<script>\nrequire(")
    foot = foot.partition("</script>")[2]
    return head.replace("</head>", f"{sheets}{STYLE}{MATHJAX}</head>", 1) + scripts + f"<script>{START}</script>" + foot


def _part(name: str) -> str:
    """Return a file of reveal.js, without fonts that it would look for beside the page."""
    return re.sub(r"@import [^;]*;", "", (REVEAL / name).read_text(encoding="utf-8"))


def unfit(notebook: Notebook, copy: Path) -> str:
    """Return why no slides can be made from an executed copy; empty where they can.

    The copy may be missing, cut or failed, or its code and text are not those of the notebook's solution as it is now.
    """
    import nbformat

    facts = copy.with_suffix(".json")
    if not (copy.is_file() and facts.is_file()):
        return f"no executed copy in {copy.parent}"
    if read_json(facts)["status"] != "done":
        return f"its run in {copy.parent} failed"
    if _lasting(nbformat.read(copy, as_version=4)) != _lasting(sources.build(notebook, "solution")):
        return f"the copy in {copy.parent} is of another source"
    return ""


def _lasting(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if not CHANGING & set(sources.tags(cell))]


def deck(notebook: Notebook, executed: Any) -> Any:
    """Return the cells of the slides (nbformat), each with its `slide_type`, from an executed copy of the notebook."""
    from nbformat.v4 import new_notebook

    blanks = {_exercise(cell): cell.source for cell in sources.build(notebook, "student").cells}
    cells: list[Any] = []
    pictured = False  # whether the present section has its picture
    for cell in executed.cells:
        tags = set(sources.tags(cell))
        if tags & UNSPOKEN or "slides:skip" in tags:
            continue
        if cell.cell_type == "markdown":
            cells.extend(_prose(cell.source))
            pictured = pictured and not any(line.startswith("#") for line in cell.source.splitlines())
        elif "exercise" in tags:
            cells.append(_code(blanks[_exercise(cell)], [], "-"))
        elif shown := [output for output in cell.outputs if _fits(output)]:
            cells.append(_code(cell.source, shown, "slide" if pictured and not _text_only(shown) else "-"))
            pictured = pictured or not _text_only(shown)
    return new_notebook(cells=cells, metadata=executed.metadata)


def _exercise(cell: Any) -> str | None:
    """Return the tag `exercise:NAME` of a cell that has one."""
    return next((tag for tag in sources.tags(cell) if tag.startswith("exercise:")), None)


def _prose(source: str) -> Iterator[Any]:
    """Yield a slide for every heading, the blocks that are shown, and those that are said."""
    spoken: list[str] = []
    leads = True  # the next plain paragraph is the section's first
    for block in _blocks(source):
        if block.startswith("**Stop here"):
            continue
        if block.startswith("#"):
            yield from _notes(spoken)
            leads = True
            if not block.startswith(SKIPPED_SECTIONS):
                yield _markdown(block, "slide")
        elif block.startswith("> **Predict"):
            yield _markdown(block, "fragment")
        elif re.match(r"\*\*\d+\. ", block):  # an exercise's text
            yield _markdown(block, "slide")
            leads = False
        elif block.startswith(("|", "```", "* ", "1. ", "[![")) or (leads and not block.startswith("**What you")):
            yield _markdown(block, "-")
            leads = leads and block.startswith("[![")
        else:
            spoken.append(block)
    yield from _notes(spoken)


def _blocks(source: str) -> Iterator[str]:
    """Yield paragraphs, lists, tables and fenced text, each whole."""
    lines: list[str] = []
    fenced = False
    for line in [*source.splitlines(), ""]:
        fenced ^= line.startswith("```")
        if line.strip() or fenced:
            lines.append(line)
        elif lines:
            yield "\n".join(lines)
            lines = []


def _notes(spoken: list[str]) -> Iterator[Any]:
    if spoken:
        yield _markdown("\n\n".join(spoken), "notes")
        spoken.clear()


def _fits(output: Any) -> bool:
    if output.output_type == "stream":
        return output.name == "stdout" and len(output.text.splitlines()) <= LONGEST
    return "image/png" in output.get("data", {})


def _text_only(outputs: list[Any]) -> bool:
    return all(output.output_type == "stream" for output in outputs)


def _markdown(source: str, slide_type: str) -> Any:
    from nbformat.v4 import new_markdown_cell

    return new_markdown_cell(source, metadata={"slideshow": {"slide_type": slide_type}})


def _code(source: str, outputs: list[Any], slide_type: str) -> Any:
    from nbformat.v4 import new_code_cell

    metadata = {"slideshow": {"slide_type": slide_type}, "tags": [BARE] if outputs else []}
    return new_code_cell(source, outputs=outputs, metadata=metadata)
