"""Write the reference of the package: a page per module, made from the docstrings, which reads no network.

    python scripts/api_reference.py            into build/api
    python scripts/api_reference.py FOLDER     into another folder

Open `manas_lite.html` there in a browser.
"""

import argparse
import importlib
import pkgutil
import re
from pathlib import Path

import jinja2
import pdoc.doc
import pdoc.render

import manas_course
import manas_lite

FOLDER = Path(__file__).resolve().parents[1] / "build" / "api"
# A line of 120 characters fits into the page, and longer ones are wrapped.
STYLE = """
@media (min-width: 770px) { main, header { width: calc(66rem + var(--sidebar-width)); } }
.pdoc .param, .pdoc .return-annotation { white-space: pre-wrap; }
"""
# What docstrings that are inherited from torch's modules and from named tuples begin with.
INHERITED = re.compile("Initialize internal Module|Define the computation|Alias for field|Create new instance")


def modules() -> dict[str, pdoc.doc.Module]:
    """Return every module of both packages by name, the command lines excepted."""
    names = []
    for root in (manas_lite, manas_course):
        listed = pkgutil.walk_packages(root.__path__, f"{root.__name__}.")
        names += [root.__name__, *(info.name for info in listed if not info.name.endswith("__main__"))]
    for name in names:
        module = importlib.import_module(name)
        for member in getattr(module, "__all__", ()):
            setattr(module, member, getattr(module, member))  # pdoc sees no name that is loaded at first use
    return {name: pdoc.doc.Module.from_name(name) for name in names}


def leave_out_inherited(holder: pdoc.doc.Module | pdoc.doc.Class) -> None:
    """Empty those docstrings that say nothing of this package."""
    for member in holder.members.values():
        if INHERITED.match(member.docstring):
            member.__dict__["docstring"] = ""
        if isinstance(member, pdoc.doc.Class):
            leave_out_inherited(member)


def pages() -> dict[str, str]:
    """Return the page of each module, as HTML."""
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.render.env.loader = jinja2.ChoiceLoader([jinja2.DictLoader({"custom.css": STYLE}), pdoc.render.env.loader])
    found = modules()
    for name, module in found.items():
        inside = [other for key, other in found.items() if key.rpartition(".")[0] == name]
        module.__dict__["submodules"] = inside  # pdoc lists those of `__all__` alone
        leave_out_inherited(module)
    return {name: pdoc.render.html_module(module, found) for name, module in found.items()}


def bodies() -> dict[str, list[tuple[str, str]]]:
    """Return what each module's page says, for pages of another layout: the parts as HTML, each with its name.

    The first part is the module's own text, under no name.
    """
    found = {}
    for name, page in pages().items():
        inside = page[page.index("<main") : page.rindex("</main>")]
        inside = _without_dead_links(re.sub(r'<h1 class="modulename">.*?</h1>', "", inside, flags=re.DOTALL))
        parts = re.findall(r'<section (?:id="([^"]+)"|class="module-info")>(.*?)</section>', inside, re.DOTALL)
        found[name] = [(member, f'<div id="{member}">{html}</div>' if member else html) for member, html in parts]
    return found


def _without_dead_links(html: str) -> str:
    """Return a page with the plain text in place of links to names that it leaves out, such as those of torch."""
    ids = set(re.findall(r'id="([^"]+)"', html))
    return re.sub(r'<a href="#([^"]+)">(.*?)</a>', lambda link: link[0] if link[1] in ids else link[2], html)


def styles() -> str:
    """Return the style sheet of what `bodies` returns. All its rules but those of buttons are for class `pdoc`."""
    return STYLE + pdoc.render.env.get_template("content.css").render()


def write(folder: Path) -> list[Path]:
    """Write the pages and their search index into a folder; return the pages."""
    written = []
    for name, html in pages().items():
        page = folder / f"{name.replace('.', '/')}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(html, encoding="utf-8")
        written.append(page)
    found = modules()
    (folder / "index.html").write_text(pdoc.render.html_index(found), encoding="utf-8")
    (folder / "search.js").write_text(pdoc.render.search_index(found), encoding="utf-8")
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the reference of the package, a page per module.")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="default: build/api")
    folder = parser.parse_args().folder
    print(f"{len(write(folder))} pages: {folder / 'manas_lite.html'}")


if __name__ == "__main__":
    main()
