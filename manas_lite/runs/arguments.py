"""Command lines: a parser that names the nearest option, a help text of settings, and files of the user's to import."""

import argparse
import difflib
import importlib.util
import re
import shutil
import sys
import textwrap
from collections.abc import Collection
from pathlib import Path
from typing import Any

from manas_lite.runs.settings import describe

INDENT: Any = {"initial_indent": "      ", "subsequent_indent": "      "}


class Parser(argparse.ArgumentParser):
    """argparse's parser with two changes: no abbreviations, and a misspelt option names the nearest one."""

    def __init__(self, **options: Any) -> None:
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(**{"allow_abbrev": False, "formatter_class": raw, **options})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, but complain of a misspelt option before a missing one."""
        known = [name for action in self._actions for name in action.option_strings]
        for argument in sys.argv[1:] if args is None else args:
            name = argument.partition("=")[0]
            if re.fullmatch(r"--[A-Za-z][\w-]*", name) and name not in known:
                self.error(f"unknown option {name}{nearest(name, known)}")
        return super().parse_known_args(args, namespace)


def nearest(name: str, known: Collection[str]) -> str:
    """Return " (did you mean ...?)" with the known name that is nearest to `name`; nothing where none is near."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def settings_help(values_of: str, settings: Any, **groups: Any) -> str:
    """Return a text with every setting: its name, its value, and one line on what it does and holds.

    Args:
        values_of: what the values that are shown belong to, such as "the preset teach".
        settings: a settings dataclass.
        groups: more of them, by the prefix of their names.
    """
    width = max(60, min(120, shutil.get_terminal_size((100, 24)).columns))
    rows = [*describe(settings), *(row for name, group in groups.items() for row in describe(group, name))]
    lines = [f"settings, for --set NAME=VALUE (the values are those of {values_of}):"]
    for row in rows:
        value = ",".join(map(str, row.default)) if isinstance(row.default, tuple) else str(row.default)
        shown = f"{row.name}.NAME=NUMBER" if isinstance(row.default, dict) else f"{row.name}={value}"
        lines += [f"  {shown}", *textwrap.wrap(f"{row.text} ({row.kind})", width, **INDENT)]
    return "\n".join(lines)


def import_file(path: str | Path) -> None:
    """Run a Python file of the user's, such as one that registers operations, modules or loss terms.

    Raises:
        FileNotFoundError: where there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} to import")
    name = f"manas_lite_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
