"""What the kit set out to reach, beside what the last run of the benchmarks found."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

GIB = 2**30

Rows = dict[str, dict[str, Any]]  # of one comparison, by who


@dataclass(frozen=True)
class Target:
    """name, with the part of the benchmarks that measures it; floor and aim: at least that much, or at most; roof:
    what it would be if the kit's arithmetic ran at the best pace of any one operation and nothing else took time."""

    name: str
    part: str
    measure: Callable[[Any], float | None]
    floor: float
    aim: float
    at_least: bool = True
    unit: str = "x"
    roof: Callable[[Any, float], float] | None = None

    def verdict(self, value: float) -> str:
        for word, bound in (("aim", self.aim), ("floor", self.floor)):
            if value >= bound if self.at_least else value <= bound:
                return word
        return "**missed**"


def _rows(found: Any, size: str = "") -> Rows:
    return {row["who"]: row for row in found["rows"] if not size or row["size"].get("height") == int(size)}


def _faster(who: str, size: str = "") -> Callable[[Any], float]:
    return lambda found: _rows(found, size)[who]["faster"]["median"]


def _roof(who: str, size: str = "") -> Callable[[Any, float], float]:
    def times(found: Any, pace: float) -> float:
        rows = _rows(found, size)
        return statistics.median(rows["textbook"]["seconds"]) / (rows[who]["flops"] / pace)

    return times


def _memory_share(found: Any) -> float | None:
    """The least share of the textbook's bytes over its start, of what takes at most 1.2 times its time."""
    rows = _rows(found)
    taken = {who: row["memory"]["peak"] - row["memory"]["before"] for who, row in rows.items()}
    quick = [who for who, row in rows.items() if who != "textbook" and row["faster"]["median"] >= 1 / 1.2]
    return min((taken[who] / taken["textbook"] for who in quick), default=None)


TARGETS = (
    Target("search step, times faster", "search", _faster("kit"), 1.2, 1.5, roof=_roof("kit")),
    Target("search step, share of memory at no more than 1.2x time", "search", _memory_share, 0.6, 0.5, False),
    Target("loss, times fewer dispatches", "loss", lambda found: found["fewer"], 20, 40),
    Target(
        "picture of 321x481 in fp32, times faster", "derain", _faster("kit", "321"), 1.15, 2, roof=_roof("kit", "321")
    ),
    Target(
        "picture of 320x480 in fp32, compiled, times faster", "compiled",
        lambda found: found["faster"]["kit, compiled"]["median"], 1.15, 2,
    ),
    Target("picture of 321x481 in bf16, times faster", "derain", _faster("kit, bf16", "321"), 1.8, 1.8),
    Target(
        "picture of 1080x1920, peak memory of the process", "derain",
        lambda found: _rows(found, "1080")["kit, tiles"]["memory"]["peak"] / GIB, 4, 4, False, " GiB",
    ),
    Target("tiles, largest difference", "derain", lambda found: found["tiles"]["carried"], 1e-4, 1e-4, False, ""),
)  # fmt: skip


def table(results: dict[str, Any]) -> str:
    """As Markdown, a line a target."""
    lines = ["| target | floor / aim | measured | reached | roof | date | command |", "|---" * 7 + "|"]
    pace = max(results["pace"]["found"].values()) if "pace" in results else None
    for target in TARGETS:
        bounds = f"{target.floor:g} / {target.aim:g}" if target.floor != target.aim else f"{target.floor:g}"
        bounds = f"{'at least' if target.at_least else 'at most'} {bounds}{target.unit}"
        entry = results.get(target.part)
        value = None if entry is None else target.measure(entry["found"])
        measured = "not measured | –" if value is None else f"{value:.3g}{target.unit} | {target.verdict(value)}"
        date = entry["date"] if entry else "–"
        roof = f"{target.roof(entry['found'], pace):.2f}{target.unit}" if entry and target.roof and pace else "–"
        lines.append(f"| {target.name} | {bounds} | {measured} | {roof} | {date} | `--only {target.part}` |")
    return "\n".join(lines)
