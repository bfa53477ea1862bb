"""Notebooks in other languages: the code of the English source, with its text from a file of translations.

The file `sources/STEM.LANGUAGE.md` holds the translation of each text of the notebook, in order. Above each stands the
mark of the English text that it translates:

    <!-- of 1a2b3c4d -->

The first text is the title with the purpose, the second what one learns and must know before. The mark is a hash of the
English text. So where the English changes, the mark no longer fits, and nothing is made from that file until somebody
has looked at the translation and written the new mark.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.course import contents, sources
from tools.course.contents import Notebook

__all__ = ["NAMES", "apply", "build", "english", "files", "mark", "outdated", "path_of"]

MARK = re.compile(r"^<!-- of (\w+) -->\n", re.MULTILINE)
NAMES = {"zh-CN": "中文"}
"""What a language is called in itself."""
ANSWERS = {"zh-CN": "练习 {number} 的答案：先自己做，再点开。"}
"""What the fold over the solution of an exercise says, by language."""


def files() -> Iterator[tuple[Notebook, str, Path]]:
    """Yield each file of translations with its notebook and its language."""
    for notebook in contents.notebooks():
        for path in sorted((contents.folder() / "sources").glob(f"{notebook.stem}.*.md")):
            yield notebook, path.name.split(".")[1], path


def path_of(notebook: Notebook, language: str) -> Path:
    """Return the path of a notebook in another language."""
    return notebook.path.with_suffix(f".{language}.ipynb")


def mark(text: str) -> str:
    """Return the mark of an English text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def english(notebook: Notebook) -> list[str]:
    """Return the texts of a notebook that a translation translates, in order."""
    texts = [f"{notebook.title}\n{notebook.purpose}", "\n".join([*notebook.learn, notebook.before])]
    return texts + [cell.source for cell in sources.read(notebook) if cell.cell_type == "markdown"]


def outdated(notebook: Notebook, path: Path) -> list[str]:
    """Return what keeps a file of translations from being used, a sentence for each text."""
    wanted = english(notebook)
    marks = [found for found, _ in _texts(path)]
    if len(marks) != len(wanted):
        return [f"{path.name} translates {len(marks)} texts, the English source has {len(wanted)}: add or remove some"]
    return [
        f"{path.name}, text {number} ({text.strip().splitlines()[0][:50]!r}): the English text is another one. Look at "
        f"the translation, then write <!-- of {mark(text)} --> above it"
        for number, (found, text) in enumerate(zip(marks, wanted, strict=True), start=1)
        if found != mark(text)
    ]


def build(notebook: Notebook, path: Path, stored: Any = None) -> Any:
    """Return the student's notebook (nbformat) in another language: the same code, other texts.

    Args:
        notebook: which one.
        path: a file of translations that `outdated` finds nothing in.
        stored: an earlier build, for the outputs that are kept, as for `sources.build`.
    """
    return apply(path, sources.build(notebook, stored=stored))


def apply(path: Path, notebook: Any) -> Any:
    """Put the texts of a file of translations into a notebook (nbformat), such as an executed copy; return it."""
    texts = iter([text for _, text in _texts(path)])
    answers = 0
    for cell in notebook.cells:
        if "answer" in sources.tags(cell):
            answers += 1
            words = ANSWERS[path.name.split(".")[1]].format(number=answers)
            cell.source = re.sub(r"<summary>.*?</summary>", f"<summary>{words}</summary>", cell.source)
        elif cell.cell_type == "markdown":
            cell.source = next(texts)
    return notebook


def _texts(path: Path) -> list[tuple[str, str]]:
    """Return the translations of a file, each with its mark."""
    _, *parts = MARK.split(path.read_text(encoding="utf-8"))
    return [(found, text.strip()) for found, text in zip(parts[::2], parts[1::2], strict=True)]
