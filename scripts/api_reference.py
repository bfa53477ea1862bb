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


def write(folder: Path) -> list[Path]:
    """Write the pages and their search index into a folder; return the pages."""
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.render.env.loader = jinja2.ChoiceLoader([jinja2.DictLoader({"custom.css": STYLE}), pdoc.render.env.loader])
    found = modules()
    pages = []
    for name, module in found.items():
        inside = [other for key, other in found.items() if key.rpartition(".")[0] == name]
        module.__dict__["submodules"] = inside  # pdoc lists those of `__all__` alone
        page = folder / f"{name.replace('.', '/')}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        leave_out_inherited(module)
        page.write_text(pdoc.render.html_module(module, found), encoding="utf-8")
        pages.append(page)
    (folder / "index.html").write_text(pdoc.render.html_index(found), encoding="utf-8")
    (folder / "search.js").write_text(pdoc.render.search_index(found), encoding="utf-8")
    return pages


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the reference of the package, a page per module.")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="default: build/api")
    folder = parser.parse_args().folder
    print(f"{len(write(folder))} pages: {folder / 'manas_lite.html'}")


if __name__ == "__main__":
    main()
