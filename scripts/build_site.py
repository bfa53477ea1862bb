"""Build the course as a site: `build/site`, plain files that any static host serves, or a browser opens from disk.

    python scripts/build_site.py                      from the executed notebooks in runs/course
    python scripts/build_site.py --copies FOLDER      from those in another folder of `course run`
    python scripts/build_site.py --preset smoke       how notebooks are run that have no copy of their present source

The site holds every notebook with its outputs, the pages of docs/, what they link to, and the reference of the API. It
has a search, a dark mode, and all that it loads: neither building nor reading it asks another host.

It needs the extras `course` and `site`. Look at it with
`python -m http.server --bind 127.0.0.1 --directory build/site`.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from api_reference import bodies, styles

from tools.course import contents, runner, slides, sources, stamping, translations

ROOT = Path(__file__).resolve().parents[1]
STYLE = ROOT / "docs" / "site" / "style.css"
FORMULAS = """
for (const formula of document.querySelectorAll(".math")) {
  renderMathInElement(formula, { throwOnError: false, delimiters: [
    { left: "\\\\(", right: "\\\\)", display: false }, { left: "\\\\[", right: "\\\\]", display: true }] });
}
"""

SECTIONS: dict[str, tuple[str, ...]] = {
    "Course": ("notebooks/README.md", "notebooks/*.ipynb", "notebooks/teaching/README.md"),
    "Use": ("docs/install.md", "docs/usage.md", "docs/datasets.md", "docs/web.md"),
    "Method": ("docs/equations.md", "docs/architecture.md", "docs/hyperparameters.md", "docs/scaling.md"),
    "Results": ("docs/results.md", "manas_lite/assets/models/*/README.md", "results/**/README.md"),
    "Reference": ("api/*.md",),
    "Project": ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"),
}
"""The sections of the site with their pages. A page that none of them names stands in the last one."""
ABOUT = {
    "Course": "Twelve notebooks lead from rain on a photograph to a network that was searched, trained and judged. "
    "Each page shows a notebook with its outputs; you can download it, with exercises to fill in. Begin with 00.",
    "Use": "How to install the kit, derain your own pictures, fetch data sets, and run it in a browser.",
    "Method": "The formulas with their places in the code, the parts of the package, and what every setting does.",
    "Results": "What was measured, and the cards of the trained networks that come with the package.",
    "Reference": "Every public name, module by module.",
    "Project": "How to contribute, what has changed, and all other pages.",
}
"""What the page of each section says before its list."""

LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
TWO_MODES = re.compile(
    r'<picture><source media="\(prefers-color-scheme: dark\)" srcset="([^"]*)">(<img [^>]*?) src="([^"]*)"></picture>'
)  # as `manas_course.diagrams` writes it
PLACE = re.compile(r"\A# @title Where runs are kept")  # its output names a folder of the machine that built the site
LONG = 15  # lines of parameters; more would push a notebook's question off the first screen
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
API = "api"
BLANK = "notebooks/to_fill_in"  # the students' notebooks, as files to download

SPHINX: dict[str, Any] = {
    "project": "manas_lite",
    "extensions": ["myst_nb", "sphinx.ext.mathjax"],
    "exclude_patterns": [f"{BLANK}/*"],
    "root_doc": "index",
    "html_theme": "pydata_sphinx_theme",
    "html_context": {"default_mode": "auto"},  # dark where the reader's system is
    "html_theme_options": {
        "logo": {"text": "manas_lite"},
        "show_toc_level": 2,
        "navbar_align": "left",
        "header_links_before_dropdown": 7,
        "footer_start": ["copyright"],
        "footer_end": [],
    },
    "html_css_files": ["api.css", "katex/katex.min.css", "style.css"],
    "html_title": "manas_lite",
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "project_copyright": "manas_lite contributors. Text and figures: CC BY 4.0. Code: MIT",  # Sphinx ends it with a dot
    "html_show_sphinx": False,
    "mathjax_path": "katex/formulas.js",  # KaTeX, which has its fonts with it: see `build`
    "mathjax_options": {"defer": "defer"},
    "myst_enable_extensions": ["dollarmath", "amsmath"],
    "myst_heading_anchors": 4,
    "suppress_warnings": ["myst.header", "misc.highlighting_failure"],
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},  # widgets need a running kernel, and their scripts another host
    "nb_render_markdown_format": "gfm",
    "nb_code_prompt_show": "Show the code",
    "nb_code_prompt_hide": "Hide the code",
    "nb_merge_streams": True,
}


class BuildError(RuntimeError):
    """The site cannot be built; the message says what to do."""


# --- the pages ----------------------------------------------------------------------------------------------


def executed(notebook: contents.Notebook, copies: Path, preset: str) -> Path:
    """Return the executed copy of a notebook; run the notebook first where there is none of its present source.

    Raises:
        BuildError: the run failed.
    """
    copy = copies / f"{notebook.stem}.ipynb"
    if why := slides.unfit(notebook, copy):
        print(f"{notebook.stem}: {why}, running it at size {preset}", flush=True)
        outcome = runner.run(notebook, preset=preset, out=copies)
        if not outcome.done:
            raise BuildError(f"{notebook.stem} failed ({outcome.reason}): mend it, then build the site again")
    return copy


def page_of(page: Any, name: str) -> Any:
    """Return an executed copy (nbformat) as a page: code that only prepares is folded, and so are the answers.

    Args:
        page: the copy, which is changed.
        name: the file name of the notebook to fill in, which the page offers.
    """
    page.metadata = {key: page.metadata[key] for key in ("kernelspec", "language_info") if key in page.metadata}
    for cell in page.cells:
        tags = set(sources.tags(cell))
        folded = cell.cell_type == "code" and (
            "exercise" in tags
            or cell.source.startswith("# @title")
            or ("parameters" in tags and cell.source.count("\n") > LONG)
        )
        cell["metadata"] = {"tags": ["hide-input"]} if folded else {}
        if PLACE.search(cell.source) and "parameters" not in tags:
            cell.outputs = []
        if "injected-parameters" in tags:
            cell.source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("runs_dir ="))
        if "setup" in tags or ("injected-parameters" in tags and "=" not in cell.source):
            cell["metadata"] = {"tags": ["remove-cell"]}
        if "title" in tags:
            cell.source += f"\n\n{{download}}`Download this notebook, with exercises to fill in <to_fill_in/{name}>`"
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_shown, cell.outputs) if output]
    return page


def _shown(output: Any) -> Any:
    """Return an output as pages show it; None for one that only a running kernel or the course's tools can read.

    A drawing in two modes follows the mode of the page, which need not be that of the system.
    """
    if "data" in output:
        live = any(kind.startswith("application/vnd.jupyter.widget") for kind in output.data)
        output.data = {kind: data for kind, data in output.data.items() if kind.startswith(("text/", "image/"))}
        if live and not any(kind.startswith("image/") for kind in output.data):
            return None  # its text is a bar that stands at 0 for ever
        if two := TWO_MODES.fullmatch(output.data.get("text/html", "")):
            dark, image, light = two.groups()
            output.data["text/html"] = "".join(
                f'{image} class="only-{mode}" src="{data}">' for mode, data in (("light", light), ("dark", dark))
            )
        return output if output.data else None
    return output


def links(text: str) -> list[re.Match[str]]:
    """Return the links of a Markdown text to files of this repository, those in fenced code excepted."""
    fences = [found.span() for found in FENCED.finditer(text)]
    return [m for m in LINK.finditer(text) if not any(start <= m.start() < end for start, end in fences)]


def assemble(source: Path, copies: Mapping[str, Path], root: Path = ROOT) -> list[str]:
    """Write what Sphinx reads: the notebooks, the pages, and all files that they link to, at their places of the clone.

    A link to a Python module becomes a link to its page of the reference, and one to a folder a link to its README.

    Args:
        source: the folder to write to.
        copies: the executed copy of every notebook, by its stem.
        root: the clone.

    Returns:
        The pages, as paths from `source`.

    Raises:
        BuildError: a page links a file that does not exist, or a translation is older than its English text.
    """
    if outdated := stamping.outdated():
        raise BuildError("\n".join(outdated))
    reference = bodies()
    written: dict[str, str] = {}
    shown = {each.path: nbformat.read(copies[each.stem], as_version=4) for each in contents.notebooks()}
    for notebook, language, file in translations.files():
        copy = nbformat.read(copies[notebook.stem], as_version=4)
        shown[translations.path_of(notebook, language)] = translations.apply(file, copy)
        _carry(
            notebook.picture_path, source / "figures" / "notebooks" / notebook.picture_path.name
        )  # its text shows it
    for path, page in shown.items():
        place = f"notebooks/{path.name}"
        _carry(path, source / BLANK / path.name)
        nbformat.write(page_of(page, path.name), source / place)
        written[place] = ""
    for name, page in api_pages(reference).items():
        written[name] = page
    waiting = ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "notebooks/README.md"]
    waiting += [path.relative_to(root).as_posix() for path in sorted((root / "docs").glob("*.md"))]
    while waiting:
        name = waiting.pop()
        if name in written or not (root / name).is_file():
            continue
        text, found = _linked((root / name).read_text(encoding="utf-8"), name, root, set(reference))
        written[name] = text
        for target in found:
            if target.endswith(".md"):
                waiting.append(target)
            elif target not in written:
                _carry(root / target, source / target)
    written["index.md"] = written.pop("README.md")
    written |= _sections(written)
    for name, text in written.items():
        if text:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(text, encoding="utf-8")
    return sorted(written)


def _linked(text: str, name: str, root: Path, modules: set[str]) -> tuple[str, list[str]]:
    """Return a page's text with its links as the site has them, and the files of the clone that it links."""
    folder, found = Path(name).parent, []
    pieces, end = [], 0
    for match in links(text):
        target = os.path.normpath(folder / match[1]).replace(os.sep, "/")
        if (root / target).is_dir():
            target = f"{target}/README.md"
        if not (root / target).is_file():
            raise BuildError(f"{name} links {match[1]}, which does not exist: mend the link")
        module = target.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if target.endswith(".py") and module in modules:
            shown = f"{API}/{module.replace('.', '/')}.md"
        else:
            found.append(target)
            shown = "index.md" if target == "README.md" else target
        pieces += [text[end : match.start()], os.path.relpath(shown, folder).replace(os.sep, "/"), match[2] or ""]
        end = match.end()
    return "".join([*pieces, text[end:]]), found


def api_pages(reference: dict[str, list[tuple[str, str]]]) -> dict[str, str]:
    """Return a page per module: a heading per name, for the contents beside the page, and what pdoc says of it."""
    pages = {}
    for name, parts in reference.items():
        below = [other for other in reference if other.rpartition(".")[0] == name]
        tree = [f"{name.rpartition('.')[2]}/{other.rpartition('.')[2]}" for other in below]
        blocks = [f"# {name}"]
        for member, html in parts:
            blocks += [f"## {member}"] if member else []
            blocks.append(f"````{{raw}} html\n<div class='pdoc'>{html}</div>\n````")
        if tree:
            blocks.append("\n".join(["```{toctree}", ":maxdepth: 1", "", *tree, "```"]))
        pages[f"{API}/{name.replace('.', '/')}.md"] = "\n\n".join(blocks) + "\n"
    return pages


def _sections(pages: dict[str, str]) -> dict[str, str]:
    """Return the pages of the sections, and the first page with the list of them below it."""
    chinese = sorted(name for name in pages if ".zh-CN." in name)
    left, made, listed = set(pages) - {"index.md", *chinese}, {}, []
    for title, patterns in SECTIONS.items():
        inside = [name for pattern in patterns for name in sorted(left) if Path("/", name).match(f"/{pattern}")]
        if title == "Reference":
            inside = [name for name in inside if name.count("/") == 1]
            left -= {name for name in left if name.startswith(f"{API}/")}
        left -= set(inside)
        if title == list(SECTIONS)[-1]:
            inside += sorted(left)
        tree = "\n".join(["```{toctree}", ":maxdepth: 1", "", *(f"/{name}" for name in inside), "```"])
        page = f"{title.lower()}.md"
        made[page] = f"# {title}\n\n{ABOUT[title]}\n\n{tree}\n"
        listed.append(page)
    front, *further = [f"/{name}" for name in chinese]  # the README before the notebooks
    listed.append(f"中文 <{front}>")
    made[front[1:]] = pages[front[1:]] + "\n".join(["\n```{toctree}", ":hidden:", "", *further, "```", ""])
    tree = "\n".join(["```{toctree}", ":hidden:", "", *listed, "```"])
    made["index.md"] = f"{pages['index.md']}\n{tree}\n"
    return made


def _carry(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, to)


# --- the site -----------------------------------------------------------------------------------------------


def build(source: Path, out: Path) -> None:
    """Let Sphinx make the site of an assembled folder; every warning is an error.

    Raises:
        BuildError: Sphinx warned, for example of a link that leads nowhere.
    """
    from sphinx.application import Sphinx

    static = source / "_static"
    shutil.copytree(slides.KATEX, static / "katex", ignore=shutil.ignore_patterns("*.woff2"))
    for font in slides.KATEX.glob("*.woff2"):  # where its style sheet names them
        _carry(font, static / "katex" / "fonts" / font.name)
    scripts = [(static / "katex" / name).read_text(encoding="utf-8") for name in ("katex.min.js", "auto-render.min.js")]
    (static / "katex" / "formulas.js").write_text("\n".join([*scripts, FORMULAS]), encoding="utf-8")
    shutil.copyfile(STYLE, static / "style.css")
    (static / "api.css").write_text(styles(), encoding="utf-8")
    settings = SPHINX | {"html_static_path": [str(static)]}
    with tempfile.TemporaryDirectory() as cache, open(os.devnull, "w", encoding="utf-8") as quiet:
        made = Path(cache, "site")
        app = Sphinx(source, None, made, Path(cache, "trees"), "html", settings, status=quiet, warning=sys.stderr)
        app.build()
        if app._warncount:
            raise BuildError(f"Sphinx gave {app._warncount} warnings (above): mend what they name")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made, out, ignore=shutil.ignore_patterns(".buildinfo*", "objects.inv", "webpack-macros.html"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "build" / "site", help="default: %(default)s")
    parser.add_argument("--copies", type=Path, default=ROOT / "runs" / "course", help="default: %(default)s")
    parser.add_argument("--preset", default="smoke", choices=contents.presets(), help="default: %(default)s")
    options = parser.parse_args()
    try:
        copies = {each.stem: executed(each, options.copies, options.preset) for each in contents.notebooks()}
        with tempfile.TemporaryDirectory() as folder:
            pages = assemble(Path(folder), copies)
            build(Path(folder), options.out)
    except (BuildError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(f"{len(pages)} pages, {size / 1e6:.0f} MB in {options.out}: open index.html there, or serve it with")
    print(f"python -m http.server --bind 127.0.0.1 --directory {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
