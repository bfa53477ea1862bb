"""Measurements as text and as a log-log plot."""

import math
import statistics
from pathlib import Path
from typing import Any

MIB = 2**20


def print_rows(rows: list[dict[str, Any]]) -> None:
    print(table(rows), flush=True)


def table(rows: list[dict[str, Any]]) -> str:
    """One line a variant, as Markdown: time, how many times faster than the first, memory, dispatches, pace."""
    columns = [
        "what",
        "who",
        "seconds",
        "times faster",
        "peak RSS, MiB",
        "over start",
        "dispatches",
        "GFLOP",
        "GFLOP/s",
    ]
    columns.append("matmul GFLOP/s")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        memory, faster = row["memory"], row["faster"]
        lines.append(
            f"| {row['what']} {_size(row['size'])} | {row['who']} | {statistics.median(row['seconds']):.3g} "
            f"| {faster['median']:.2f} ({faster['least']:.2f}-{faster['most']:.2f}) | {memory['peak'] / MIB:.0f} "
            f"| {(memory['peak'] - memory['before']) / MIB:.0f} | {_count(row['dispatches'])} "
            f"| {_count(row['flops'] / 1e9, 1)} | {_count(row['flops_a_second'] / 1e9)} "
            f"| {row['matmul_flops_a_second'] / 1e9:.0f} |"
        )
    return "\n".join(lines)


def _count(value: float, digits: int = 0) -> str:
    return f"{value:.{digits}f}" if value else "–"  # not counted


def _size(size: dict[str, Any]) -> str:
    if "height" in size:
        return f"{size['height']}x{size['width']}"
    return f"{size['batch']}x{size.get('rains', 3)} patches of {size.get('patch', 64)}"


def summary(results: dict[str, Any]) -> str:
    """Everything that was found so far, as Markdown."""
    parts = []
    for name, entry in results.items():
        found = entry["found"]
        title = f"### {name} ({entry['date']}, {entry['threads']} thread(s), {entry['machine']['cpu']['name']})"
        if isinstance(found, dict) and "rows" in found:
            others = {key: value for key, value in found.items() if key != "rows"}
            parts += [title, table(found["rows"]), *(f"{key}: {_short(value)}" for key, value in others.items())]
        elif isinstance(found, dict):
            parts += [title, *(f"{key}: {_short(value)}" for key, value in found.items())]
        else:
            parts += [title, growth_table(found)]
    return "\n\n".join(parts)


def slope(points: list[tuple[float, float]]) -> float:
    """Return the slope of (size, measure) points on two logarithmic axes, by least squares: 1 is linear growth."""
    x, y = ([math.log(pair[i]) for pair in points] for i in (0, 1))
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    rise = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return rise / sum((a - mean_x) ** 2 for a in x)


def growth_table(points: list[dict[str, Any]]) -> str:
    """Return the slopes as Markdown, a line per size: over all its points, and over the last two, where it ends."""
    lines = ["| what grows | from | to | measure | slope | at the end |", "|---" * 6 + "|"]
    sizes = dict.fromkeys(point.get("swept") or point["grown"] for point in points)
    for size in sizes:
        chosen = [point for point in points if size in (point.get("swept"), point.get("grown"))]
        measures: dict[str, list[tuple[float, float]]] = {}
        for point in chosen:
            for name in ("seconds", "saved_bytes", "bytes"):
                values = point.get(name, {})
                for who, value in (values if isinstance(values, dict) else {"kit": values}).items():
                    measures.setdefault(f"{who}, {name.replace('_', ' ')}", []).append((point["value"], value))
        for name, pairs in measures.items():
            ends = f"{pairs[0][0]:,} | {pairs[-1][0]:,}"
            lines.append(f"| {size} | {ends} | {name} | {slope(pairs):.2f} | {slope(pairs[-2:]):.2f} |")
    return "\n".join(lines)


def write_tables(text: str, page: Path, mark: str) -> None:
    """Put the tables between the marks of that name on the page."""
    head, _, rest = page.read_text(encoding="utf-8").partition(f"<!-- {mark} -->")
    tail = rest.partition("<!-- end -->")[2]
    page.write_text(f"{head}<!-- {mark} -->\n{text}\n<!-- end -->{tail}", encoding="utf-8")


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(v)}" for key, v in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(map(_short, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plot(points: list[dict[str, Any]], path: Path) -> None:
    """Seconds and saved bytes of a search step against each swept size, log-log."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(point["swept"] for point in points))
    figure = Figure(figsize=(3 * len(names), 5.5), layout="constrained")
    axes = figure.subplots(2, len(names), sharey="row", squeeze=False)
    for column, name in enumerate(names):
        chosen = [point for point in points if point["swept"] == name]
        for row, (key, label) in enumerate((("seconds", "seconds a search step"), ("saved_bytes", "bytes kept"))):
            ax = axes[row][column]
            for who, marker in (("textbook", "o--"), ("kit", "s-")):
                ax.loglog([p["value"] for p in chosen], [p[key][who] for p in chosen], marker, label=who)
            ax.set_xticks([p["value"] for p in chosen], [str(p["value"]) for p in chosen])
            ax.minorticks_off()
            ax.grid(alpha=0.3)
            if column == 0:
                ax.set_ylabel(label)
            if row:
                ax.set_xlabel(name)
    axes[0][0].legend()
    figure.savefig(path, dpi=110)
