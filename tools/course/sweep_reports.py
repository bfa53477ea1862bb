"""The report of a sweep: made once, from the sweep's own runs alone, also where several machines shared them.

It holds the table of comparisons (CSV, LaTeX, Markdown), the forest plot, and a line that says what was compared how.
"""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from manas_course import ablation, differences, illustrations
from manas_course.chance import LEVEL, MARGIN
from manas_lite.draw import save
from manas_lite.runs.record import to_json
from manas_lite.runs.settings import to_dict
from tools.course import contents, runner, sources
from tools.course.parameters import arm_of
from tools.course.sweeps import Sweep

__all__ = ["Comparison", "compared", "own_results", "write"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What the runs of a sweep say about its arms."""

    rows: list[dict[str, Any]]
    """A row per arm, as `differences.compare` makes them."""

    results: list[dict[str, Any]]
    """The runs that they come from."""

    reference: str
    """The arm that all others are compared with."""

    missing: int
    """Runs of the sweep without a result."""

    def protocol(self) -> str:
        """Return one line that says what was compared, and how."""
        first, settings = self.results[0], self.results[0]["settings"]
        gaps = f", {self.missing} runs of the sweep missing" if self.missing else ""
        searches = sorted({row["searches"] for row in self.rows})
        counts = str(searches[0]) if len(searches) == 1 else f"{searches[0]} to {searches[-1]}"
        return (
            f"{len(self.results)} runs of this sweep{gaps}: {len(self.rows)} arms, each paired with {self.reference} "
            f"over {counts} searches and {self.rows[0]['pictures']} pictures ({first['part']}); "
            f"size {settings['size']}, {settings['search_steps']} search and {settings['retrain_steps']} training "
            "steps; PSNR (RGB) in dB; intervals of 95 %, over other searches and other pictures; p after Holm, "
            f"at {LEVEL:g}; equivalent within {MARGIN:g} dB."
        )


def own_results(sweep: Sweep, folders: Sequence[Path]) -> tuple[list[dict[str, Any]], int]:
    """Return the results of a sweep's runs, found by their settings, and how many runs have none.

    Args:
        sweep: whose runs.
        folders: where the sweep, or shards of it, wrote their copies.
    """
    notebook = contents.find(sweep.notebook)
    built = sources.build(notebook, "solution")
    defaults = {parameter.name: parameter.default for parameter in runner.parameters_of(built)}
    if not ({"arm", "search_seed"} <= set(defaults)):
        return [], 0
    found: dict[str, dict[str, Any]] = {}
    part = "val"
    wanted = {}
    for run in sweep.runs():
        values = {**defaults, **runner.settle(notebook, built, sweep.preset, run.parameters, Path("."))}
        part = "test" if values.get("final") else "val"
        wanted[to_json(to_dict(arm_of(values)))] = run.name
    for folder in folders:
        for result in ablation.results(folder / "runs", part):
            key = to_json(result["settings"])
            if key in wanted:
                found.setdefault(key, result)
    return [found[key] for key in wanted if key in found], len(wanted) - len(found)


def compared(sweep: Sweep, folders: Sequence[Path]) -> Comparison | None:
    """Return the comparison of a sweep's arms; None where it has none: one arm, another notebook, no shared seeds.

    The arm `full` is the reference, or else the first one of the sweep file.
    """
    results, missing = own_results(sweep, folders)
    arms = list(dict.fromkeys(result["arm"] for result in results))
    reference = "full" if "full" in sweep.arms else next(iter(sweep.arms), "")
    if len(arms) < 2 or reference not in arms:
        return None
    return Comparison(differences.compare(results, reference), results, reference, missing)


def write(sweep: Sweep, out: Path, shards: Sequence[Path] = ()) -> list[Path]:
    """Write the report into `out`/report and return its files.

    Args:
        sweep: what was run.
        out: the sweep's folder.
        shards: folders of other machines that ran parts of it.

    Raises:
        ValueError: where there is nothing to compare yet.
    """
    found = compared(sweep, [out, *shards])
    if found is None:
        raise ValueError(
            f"nothing to compare in {', '.join(map(str, [out, *shards]))}: a report needs finished runs of notebook 06 "
            "of at least two arms of this sweep, one of them the reference, with a seed that both have"
        )
    folder = out / "report"
    folder.mkdir(parents=True, exist_ok=True)
    line = found.protocol()
    texts = {
        "table.tex": differences.latex(found.rows, line),
        "table.md": _markdown(found.rows, line),
        "protocol.txt": line + "\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(found.rows[0]))
        table.writeheader()
        table.writerows(found.rows)
    ablation.write_tables(found.results, folder)
    title = f"{found.reference} is 0; {len(found.results)} runs; PSNR (RGB)"
    save(illustrations.forest(found.rows, title=title), folder / "forest.png", also=("pdf",))
    return [folder / name for name in ("table.csv", *texts, "runs.csv", "images.csv", "forest.png", "forest.pdf")]


def _markdown(rows: Sequence[Mapping[str, Any]], line: str) -> str:
    lines = ["| arm | searches | difference (dB) | 95 % interval | p (Holm) | detectable | verdict |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [row["arm"], str(row["searches"]), f"{row['mean']:+.2f}", f"[{row['low']:+.2f}, {row['high']:+.2f}]"]
        cells += [f"{row['p']:.3f}", f"{row['detectable']:.2f}", row["verdict"]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, "", line]) + "\n"
