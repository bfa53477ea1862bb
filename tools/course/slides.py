"""Slides of a notebook, made from its executed copy: for the lecturer who teaches from the same source.

A section (`## `) is a slide: its heading, what is said in a few words, and beside them the section's first picture. The
few words are the lines `slides: ...` of the section's source, a bullet for each; readers of the notebook do not see
them. In a section without such lines they are its first paragraph, its lists and formulas. Each question, each table,
each further picture and what is printed in several lines is a slide of its own, as are the exercises with their blank.
What a section says besides, and every "What you should see", goes into the speaker's notes (key S). A cell tagged
`slides:skip` is left out.

The page holds reveal.js, and KaTeX with its fonts where there are formulas: it needs no network.
"""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manas_lite.runs.record import read_json
from tools.course import sources
from tools.course.contents import Notebook

__all__ = ["bullets", "deck", "unfit", "write_slides"]

CHANGING = {"facts", "injected-parameters"}  # cells that differ between runs of one source
UNSPOKEN = {"facts", "setup", "versions", "kept", "parameters", "injected-parameters", "imports", "check", "record"}
SKIPPED_SECTIONS = ("## Exercises", "## From files")
BARE = "slides:output-only"
FOLD = re.compile(r"</?details>|<summary>.*?</summary>")  # the speaker sees what readers unfold
LONGEST = 14  # lines of printed text that a slide holds
REVEAL = Path(__file__).parent / "reveal"  # reveal.js 4.6.1, with its licence
KATEX = Path(__file__).parent / "katex"  # KaTeX 0.19.1 and its fonts, with its licence
STYLE = """<style>
:root { --jp-code-font-size: 24px; --jp-ui-font-size1: 24px; --jp-content-font-size1: 28px }
.reveal, .reveal .jp-RenderedHTMLCommon { font-size: 28px }
.reveal h1 { font-size: 1.9em; text-transform: none }
.reveal h2, .reveal h3 { font-size: 1.4em; text-transform: none }
.reveal pre, .reveal pre code, .reveal .highlight { font-size: 24px; line-height: 1.25; white-space: pre-wrap }
.reveal li { margin: 0.3em 0 } .reveal .jp-RenderedHTMLCommon ul { padding-left: 1em }
.reveal .jp-RenderedHTMLCommon table { width: 100%; font-size: 24px }
.reveal .jp-RenderedHTMLCommon td, .reveal .jp-RenderedHTMLCommon th { padding: 0 0.3em; line-height: 1.15 }
.reveal section.beside.present { display: grid !important; grid-template-columns: 1fr 1.5fr; column-gap: 1em;
  align-content: start }
.reveal section.beside .head { grid-column: 1 / span 2 }
.reveal section.beside .words { grid-column: 1 }
.reveal section.beside .picture { grid-column: 2; grid-row: 2 / span 40; align-self: start }
.reveal .slides { text-align: left } .reveal section img { width: 100%; max-height: 560px; object-fit: contain;
  object-position: left top }
.reveal .jp-OutputArea-prompt, .reveal .jp-InputPrompt { display: none }
</style>"""
START = """
for (const slide of document.querySelectorAll(".slides section")) {
  if (slide.querySelector(":scope > section")) continue;
  const parts = [...slide.children].filter((part) => part.tagName !== "ASIDE");
  const pictures = parts.filter((part) => part.querySelector("img"));
  const kind = (part) => pictures.includes(part) ? "picture" : part.querySelector("h1, h2, h3") ? "head" : "words";
  for (const part of parts) part.classList.add(kind(part));
  if (pictures.length && slide.querySelector(":scope > .words")) slide.classList.add("beside");
}
if (window.renderMathInElement) renderMathInElement(document.querySelector(".slides"), { throwOnError: false,
  ignoredClasses: ["notes"], delimiters: [{ left: "$$", right: "$$", display: true },
    { left: "$", right: "$", display: false }] });
Reveal.initialize({ controls: true, progress: true, history: true, slideNumber: "c/t", center: false,
  width: 1280, height: 720, plugins: [RevealNotes] });
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
    if "$" in re.sub(r"<(script|style)\b.*?</\1>", "", head, flags=re.DOTALL):
        sheets += f"<style>{_with_fonts((KATEX / 'katex.min.css').read_text(encoding='utf-8'))}</style>"
        for name in ("katex.min.js", "auto-render.min.js"):
            scripts += f"<script>{(KATEX / name).read_text(encoding='utf-8')}</script>"
    return head.replace("</head>", f"{sheets}{STYLE}</head>", 1) + scripts + f"<script>{START}</script>" + foot


def _part(name: str) -> str:
    """Return a file of reveal.js, without fonts that it would look for beside the page."""
    return re.sub(r"@import [^;]*;", "", (REVEAL / name).read_text(encoding="utf-8"))


def _with_fonts(sheet: str) -> str:
    """Return a style sheet of KaTeX that holds its fonts."""

    def held(found: re.Match[str]) -> str:
        data = base64.b64encode((KATEX / found[1]).read_bytes()).decode()
        return f'src:url(data:font/woff2;base64,{data}) format("woff2")'

    return re.sub(r"src:url\(fonts/([\w-]+\.woff2)\)[^}]*(?=})", held, sheet)


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


def bullets(source: str) -> dict[str, list[str]]:
    """Return the lines `slides: ...` of a notebook's source, by the heading of their section."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in source.splitlines():
        if line.startswith(("# ## ", "# ### ")):
            heading = line.removeprefix("# ")
        elif line.startswith("# slides: "):
            found.setdefault(heading, []).append(line.removeprefix("# slides: "))
    return found


def deck(notebook: Notebook, executed: Any) -> Any:
    """Return the cells of the slides (nbformat), each with its `slide_type`, from an executed copy of the notebook."""
    from nbformat.v4 import new_notebook

    blanks = {_exercise(cell): cell.source for cell in sources.build(notebook, "student").cells}
    made = _Deck(bullets(notebook.source))
    for cell in executed.cells:
        tags = set(sources.tags(cell))
        if tags & UNSPOKEN or "slides:skip" in tags:
            continue
        if cell.cell_type == "markdown":
            for block in _blocks(cell.source):
                made.prose(block)
        elif "exercise" in tags:
            made.code(blanks[_exercise(cell)], [])
        elif shown := [output for output in cell.outputs if _fits(output)]:
            made.output(shown)
    made.say_notes()
    return new_notebook(cells=made.cells, metadata=executed.metadata)


class _Deck:
    """The cells of the slides so far, and the section that they have come to."""

    def __init__(self, told: dict[str, list[str]]) -> None:
        self.told, self.cells = told, list[Any]()
        self.heading = self.few = ""  # of the section
        self.leads = True  # the next plain paragraph is the section's first
        self.pictured = False  # the section has its picture
        self.place: int | None = None  # where its picture goes: after the few words
        self.spoken: list[str] = []
        self.folded = False  # within what readers unfold

    def prose(self, block: str) -> None:
        """Add a block of text: a heading, a paragraph, a list, a table, a formula."""
        folded = self.folded or block.startswith("<details")
        self.folded = folded and "</details>" not in block
        if folded:
            self.spoken.append(block)
            return
        if block.startswith(("**Stop here", "![", "<picture")):  # a picture beside the notebook is not in this one file
            return
        if block.startswith("#"):
            self.say_notes()
            self.heading = "" if block.startswith(SKIPPED_SECTIONS) else block
            self.pictured, self.place = False, None
            self.few = "\n".join(f"* {line}" for line in self.told.get(block, []))
            self.leads = bool(self.heading) and not self.few
            if self.heading:
                self.markdown(block, "slide")
            if self.few:
                self.markdown(self.few, "-")
                self.place = len(self.cells)
        elif block.startswith("> **Predict"):
            self.say_notes()
            self.markdown(block, "slide")
            self.place = None  # the section's picture is the answer: it comes after the question
        elif not self.heading and re.match(r"\*\*\d+\. ", block):  # an exercise's text
            self.say_notes()
            self.markdown(block, "slide")
            self.leads = False
        elif block.startswith(("|", "```")):
            if self.heading and not self.leads:
                self.begin()
            self.markdown(block, "-")
        elif self.heading not in self.told and (
            block.startswith(("* ", "1. ", "[![", "$$")) or (self.leads and not block.startswith("**What you"))
        ):
            self.markdown(block, "-")
            self.leads = self.leads and block.startswith("[![")
        else:
            self.spoken.append(block)

    def output(self, shown: list[Any]) -> None:
        """Add what a cell put out: a picture beside the words if it is the first, everything else on its own."""
        pictures = [output for output in shown if output.output_type != "stream"]
        texts = [output.text.strip() for output in shown if output.output_type == "stream"]
        if pictures or (self.few and len("\n".join(texts).splitlines()) == 1):
            self.spoken += texts
            if not pictures:
                return
        if pictures and not self.pictured and self.place is not None:
            self.code("", pictures)
            self.cells.insert(self.place, self.cells.pop())
        else:
            if self.heading and (self.pictured or not pictures or self.few):
                self.begin()
            if pictures and not self.pictured and self.few:
                self.markdown(self.few, "-")
            self.code("", pictures or shown)
        self.pictured = self.pictured or bool(pictures)

    def begin(self) -> None:
        """Begin a further slide of the section."""
        self.say_notes()
        self.markdown(self.heading.splitlines()[0], "slide")

    def say_notes(self) -> None:
        """Give what is only said to the slide that it belongs to."""
        if self.spoken:
            self.markdown(FOLD.sub("", "\n\n".join(self.spoken)), "notes")
            self.spoken.clear()

    def markdown(self, source: str, slide_type: str) -> None:
        from nbformat.v4 import new_markdown_cell

        self.cells.append(new_markdown_cell(source, metadata={"slideshow": {"slide_type": slide_type}}))

    def code(self, source: str, outputs: list[Any]) -> None:
        from nbformat.v4 import new_code_cell

        metadata = {"slideshow": {"slide_type": "-"}, "tags": [BARE] if outputs else []}
        self.cells.append(new_code_cell(source, outputs=outputs, metadata=metadata))


def _exercise(cell: Any) -> str | None:
    """Return the tag `exercise:NAME` of a cell that has one."""
    return next((tag for tag in sources.tags(cell) if tag.startswith("exercise:")), None)


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


def _fits(output: Any) -> bool:
    if output.output_type == "stream":
        return output.name == "stdout" and len(output.text.splitlines()) <= LONGEST
    return "image/png" in output.get("data", {})
