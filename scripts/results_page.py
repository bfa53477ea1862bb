"""Write docs/results.md, its tables as CSV and LaTeX, and the README's models from the result files: make results.

No number is written by hand: a section reads its files, names them and the command that made them, and says so when
they are not there yet. `--check` changes nothing and exits 1 where the page differs.
"""

import argparse
import csv
import functools
import io
import itertools
import math
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ablations import FILES
from arms import BEST, BUDGET, LEAST_GAIN, SPACE, against_searched
from demo_time import sentence
from experiments import rows as rows_of

from manas_course import ablation, differences, micro_bench
from manas_course.chance import MARGIN, SEARCH_DEVIATION, Chance
from manas_lite import Genotype
from manas_lite.networks.budget import random_within
from manas_lite.networks.costs import measure_costs
from manas_lite.runs.record import read_json

ROOT = Path(__file__).resolve().parents[1]
PAGE, TABLES, README = ROOT / "docs" / "results.md", ROOT / "results" / "tables", ROOT / "README.md"
CHINESE_README = ROOT / "README.zh-CN.md"
MODELS, PUBLISHED = ROOT / "manas_lite" / "assets" / "models", "results/published/Rain100L.csv"
DIFFERENCE = ("95 % interval", "p (Holm)", "detectable", "verdict")
REFERENCE_BLOCK = "plain, 32 wide"
DETECTABLE = (
    "*95 % interval* and *p*: one t test over the searches and one over the pictures, joined, because another search "
    "and another picture would both have given other numbers; p is corrected for all rows of the table (Holm). The "
    "verdict is *better* or *worse* where p is 0.05 or less, *equivalent* where the difference is shown to be smaller "
    f"than {MARGIN:g} dB (two one-sided tests, corrected likewise), else *undecided*. *detectable*: what this many "
    "searches and pictures, spread like these, would find 4 times in 5 at the strictest step of that correction."
)
CHECKLIST = """\
## The checklist

Lindauer and Hutter, "Best Practices for Scientific Research on Neural Architecture Search", JMLR 2020.

| asked for | here |
|---|---|
| code of the training pipeline, the search space and the search | `manas_lite/`, MIT |
| the same training pipeline for all methods | arms: one function, same pictures, crops, order, steps, initial seed |
| hyper-parameters of all methods, how they were chosen | docs/hyperparameters.md; chosen on validation pictures (*) |
| ablations | notebook 06; tables above |
| the same evaluation protocol, test data untouched | test scenes are sealed while anything runs that chooses (*) |
| comparison over time | notebook 05: best so far against total cost, the search's own share included |
| random search, and random sampling | arms and notebook 05 |
| several runs with different seeds, their deviation | in every comparison, with the smallest detectable difference |
| a tabular benchmark where training is too dear | `manas_course.micro_bench` |
| time, memory and machine of the whole | manifests of the runs; cost tables of the notebooks; benchmarks/README.md |
| everything tried is reported | failed runs are listed by the sweeps; none is excluded from a table here |

(*) Two exceptions. The loss weights of the scaled presets were chosen on the six photographs that the demo reports on.
The test pictures of rain-lite were opened three times: its card lists what was read each time.
"""


@dataclass(frozen=True)
class Table:
    """rows of text under a header; `source` and `command` are printed below. command None: copied, not computed."""

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    source: str
    command: str | None

    def markdown(self) -> str:
        lines = ["| " + " | ".join(self.header) + " |", "|---" * len(self.header) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        how = f"made by `{self.command}`" if self.command else "copied from the articles named, and the models' cards"
        made = f"From [{self.source}](../{self.source}), {how}; "
        also = f"also as [CSV](../results/tables/{self.name}.csv) and [LaTeX](../results/tables/{self.name}.tex)."
        return "\n".join([*lines, "", made + also])

    def csv(self) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        return text.getvalue()

    def latex(self) -> str:
        special = str.maketrans({c: rf"\{c}" for c in "%_&#"})
        body = [" & ".join(cell.translate(special) for cell in row) + r" \\" for row in [self.header, *self.rows]]
        lines = [rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}", r"\toprule", body[0], r"\midrule", *body[1:]]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


Section = tuple[str, list[str | Table]]


def cards() -> list[dict[str, Any]]:
    """Of the models in the package, by name."""
    return [read_json(path) for path in sorted(MODELS.glob("*/card.json"))]


def models() -> Section:
    command = "python scripts/train_models.py NAME --data FOLDER --ship"
    parts: list[str | Table] = []
    for card in cards():
        source = (MODELS / card["name"] / "card.json").relative_to(ROOT).as_posix()
        rows = []
        for test, kinds in card["tests"].items():
            for label, prefix, kind in (
                ("rainy input", "rainy_", "single"),
                (card["name"], "", "single"),
                ("with self-ensemble", "", "ensemble"),
            ):
                m = {k.removeprefix(prefix): v for k, v in kinds[kind].items() if k.startswith(prefix)}
                cells = [f"{m['psnr_y']:.2f}", f"{m['ssim_y']:.4f}", f"{m['psnr_rgb']:.2f}", f"{m['ssim_rgb']:.4f}"]
                rows.append([test, label, *cells])
        header = ["test pictures", "", "PSNR Y", "SSIM Y", "PSNR RGB", "SSIM RGB"]
        cost = f"{card['parameters'] / 1e6:.3f} M parameters, {card['flops_256'] / 1e9:.2f} GFLOPs on 256 x 256 pixels"
        parts += [f"**{card['name']}** ({cost})", Table(card["name"], header, rows, source, command)]
    return "The models in the package", parts or [f"Not there yet: `{command}`."]


CHINESE = ["模型", "用途", "测试图片：PSNR Y，有雨 → 去雨", "参数", "G 次乘加", "每张图片的秒数"]


def readme_models(chinese: bool = False) -> str:
    """The README's block on the models."""
    prenet = next(row for row in rows_of(ROOT / PUBLISHED) if row["method"] == "PReNet")
    header = [
        "model",
        "for",
        "test pictures: PSNR Y, rainy → derained",
        "parameters",
        "G multiply-adds",
        "s per picture",
    ]
    header = CHINESE if chinese else header
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    shipped = cards()
    for card in shipped:
        tests = [
            f"{test} {kinds['single']['rainy_psnr_y']:.1f} → {kinds['single']['psnr_y']:.1f}"
            for test, kinds in card["tests"].items()
        ]
        link = f"[`{card['name']}`](manas_lite/assets/models/{card['name']}/README.md)"
        cost = [
            f"{card['parameters'] / 1e6:.2f} M",
            f"{card['flops_256'] / 2e9:.1f}",
            f"{card['speed']['seconds']:.2f}",
        ]
        lines.append("| " + " | ".join([link, card["about"], ", ".join(tests), *cost]) + " |")
    hours = sum(part["seconds"] for c in shipped for part in (c["search"], c["retrain"], *c["tunes"])) / 3600
    theirs, seconds = f"{prenet['psnr_y']} dB, {prenet['gmacs_256']} G", shipped[0]["speed"]["prenet_seconds"]
    if chinese:
        text = (
            "乘加次数按 256 x 256 像素计；秒数按 481 x 321 像素、一个 CPU 线程计，同样条件下 PReNet 结构的网络"
            f"（发表值 {theirs}）需要 {seconds:.1f} 秒。全部模型由本工具包用一个 CPU 核心在 {hours:.1f} 小时内"
            "搜索和训练，各一个随机种子；Rain100L 的一百张测试图片中有十张可用。"
        )
        return "\n".join([*lines, "", text])
    text = (
        "Multiply-adds on 256 x 256 pixels; seconds for 481 x 321 on one CPU thread, where a network of PReNet's shape "
        f"(published: {theirs}) takes {seconds:.1f} s. All were searched and trained by this kit in {hours:.1f} hours "
        "of one CPU core, one seed each; of Rain100L ten of the hundred test pictures were at hand."
    )
    return "\n".join([*lines, "", *textwrap.wrap(text, 120, break_on_hyphens=False)])


def published() -> Section:
    """Published rows on Rain100L with those of this kit's models below them: another sample of the same set."""
    rows = []
    for row in rows_of(ROOT / PUBLISHED):
        cost = [f"{int(row['parameters']) / 1e6:.3f}" if row["parameters"] else "–", row["gmacs_256"] or "–"]
        name = row["method"] + (" ¹" if row["protocol"] != "trained on this set" else "")
        rows.append([name, *cost, row["pictures"], "–", row["psnr_y"], row["ssim_y"], row["source"]])
    for card in cards():
        # Published counts are of multiply-adds; this kit counts the two operations apart.
        cost = [f"{card['parameters'] / 1e6:.3f}", f"{card['flops_256'] / 2e9:.1f}"]
        m, name = card["tests"]["Rain100L"]["single"], card["name"]
        pictures = len(read_json(ROOT / "results" / "models" / name / "Rain100L-single.json")["rows"])
        scores = [f"{m['rainy_psnr_y']:.2f}", f"{m['psnr_y']:.2f}", f"{m['ssim_y']:.3f}"]
        rows.append([name, *cost, str(pictures), *scores, f"this kit, results/models/{name}"])
    header = ["method", "M parameters", "G multiply-adds at 256 x 256", "pictures", "rainy PSNR Y", "PSNR Y", "SSIM Y"]
    text = (
        "The published rows are means over the set's hundred test pictures. The models of this kit could be scored on "
        "ten of them only, so the two kinds of rows stand beside each other but are not ranked. ¹ trained on "
        "another set, Rain13K."
    )
    return "Beside published rows: Rain100L", [
        text,
        Table("published", [*header, "source"], rows, PUBLISHED, None),
        "![PSNR against multiply-adds, seconds and parameters](../figures/published.png)",
    ]


def arms() -> Section:
    command, source = "python scripts/arms.py --data FOLDER", "results/arms/summary.json"
    found = read_json(ROOT / source)
    against = {row["arm"]: row for row in against_searched(found["seeds"])}
    rows = []
    for arm, facts in found["arms"].items():
        deviation = "–" if facts["deviation"] is None else f"{facts['deviation']:.2f}"
        cells = [arm, f"{facts['n']}", f"{facts['psnr_y']:.2f}", deviation, f"{facts['gain']:+.2f}"]
        cells += [f"{facts['parameters'] / 1e6:.3f}", f"{facts['flops_256'] / 1e9:.2f}", f"{facts['trainings']:.1f}"]
        cells += [f"{facts['seconds_in_all']:.0f}", f"{facts['crop_gain_less_whole']:+.2f}"]
        rows.append(cells + difference(against.get(arm)))
    header = ["arm", "seeds", "PSNR Y", "deviation", "gain", "M parameters", "GFLOPs", "trainings", "CPU s in all"]
    header += ["crops less whole", "less searched", *DIFFERENCE]
    gaps = "; ".join(
        f"`{arm}`: supernet {facts['supernet_val_psnr_rgb']:.2f} dB, the derived network with its weights "
        f"{facts['inherited_val_psnr_rgb']:.2f} dB, trained from scratch {facts['val_psnr_rgb']:.2f} dB, "
        f"{facts['networks']} different networks in {facts['n']} searches of {facts['search_seconds']:.0f} CPU s"
        for arm, facts in found["arms"].items()
        if "search_seconds" in facts
    )
    spent = [facts["flops_256"] / 1e9 for facts in found["arms"].values()]
    text = (
        f"All networks have about the same FLOPs ({min(spent):.2f} to {max(spent):.2f} G) and the same 3x3 head, and "
        "are trained alike, seed by seed on the same crops in the same order. *random search*: as many random networks "
        "as the computing of search and training pays for, the best on the choosing pictures. *CPU s in all*: a run's "
        "trainings, and its search or its candidates. *crops less whole*: gain on random crops less gain on whole "
        "pictures (RGB), both of the choosing pictures. "
        f"Validation PSNR (RGB) of the searches, {gaps}. {DETECTABLE}"
    )
    few, more = (Chance.planned(n).detectable() for n in (3, 10))
    plan = (
        f"How many searches does an answer take? Where runs of one arm lie {SEARCH_DEVIATION:g} dB apart, 3 searches "
        f"of each find a difference of {few:.1f} dB 4 times in 5, and 10 searches one of {more:.1f} dB."
    )
    return "Does the search help? Arms at equal FLOPs", [
        Table("arms", header, rows, source, command),
        answer(),
        text,
        freedom(found["seeds"]),
        plan,
        undertrained(found["arms"]),
        "![differences to the searched arm](../figures/arms.png)",
    ]


def answer() -> str:
    """Whether the search helps, in three sentences that follow from the numbers: on the page and in the README."""
    seeds = read_json(ROOT / "results" / "arms" / "summary.json")["seeds"]
    rows = {row["arm"]: row for row in against_searched(seeds)}
    chance, plain = ours(rows["random"]), ours(rows["plain"])
    words = {
        "better": "So the search finds better networks than chance does",
        "equivalent": f"So chance does as well as the search, to {MARGIN:g} dB",
        "worse": "So chance does better than the search",
        "undecided": "So this study cannot tell the search from chance",
    }
    beside = {
        "better": "and the search does better than a plain design",
        "equivalent": "and a plain design does as well",
        "worse": "and a plain design of the same cost does better",
        "undecided": "nor can it tell the search from a plain design"
        if chance == "undecided"
        else "and a plain design is not told apart from it",
    }
    best = "the best of as many random ones as the same computing pays for"
    only = (
        " Under this budget they differ only in where their parallel modules stand." if gates_are_fixed(seeds) else ""
    )
    text = (
        f"**Does the search find better networks than chance?** {seeds} searches on pictures of Rain100L were compared "
        f"with other ways to spend {BUDGET / 1e9:g} GFLOPs, all trained alike. On held-out pictures the searched "
        f"networks are {ahead(rows['random'], 'a random one')}, {ahead(rows[BEST], best)}, and "
        f"{ahead(rows['plain'], 'a network of plain residual blocks')}.{only} {words[chance]}, {beside[plain]}."
    )
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def difference(row: dict[str, Any] | None) -> list[str]:
    """Cells of a comparison with the reference arm, which has none with itself."""
    if row is None:
        return ["–"] * (len(DIFFERENCE) + 1)
    interval = f"{row['low']:+.2f} to {row['high']:+.2f}"
    band = f"{row['detectable']:.2f}" if math.isfinite(row["detectable"]) else "–"
    return [f"{row['mean']:+.2f}", interval, f"{row['p']:.3f}", band, row["verdict"]]


@functools.cache
def random_ones(seeds: int) -> list[Genotype]:
    """The first random network of each seed."""
    costs = measure_costs(SPACE, "flops")
    return [random_within(SPACE, costs, BUDGET, 1000 * seed) for seed in range(seeds)]


def gates_are_fixed(seeds: int) -> bool:
    """Tell whether the budget leaves no choice of gates."""
    return len({genotype.edges for genotype in random_ones(seeds)}) == 1


def freedom(seeds: int) -> str:
    """What the budget leaves open to a search, seen in the study's random networks."""
    drawn = random_ones(seeds)
    counts = sorted({genotype.modules.count("parallel") for genotype in drawn})
    many = f"{' or '.join(map(str, counts))} of {len(drawn[0].modules)} modules parallel"
    gates = ", ".join(f"`{gate}`" for gate in sorted({gate for genotype in drawn for gate in genotype.edges}))
    bound = (
        " Costs come in steps in this space, and none lies within 3 % under the budget: the most expensive gates are "
        "taken everywhere. So the searched, sampled and random networks differ in *which* modules are parallel, and in "
        "nothing else. What a choice of gates is worth, this study does not say."
    )
    text = f"What the budget leaves open: its random networks have {many}, and the gates {gates}."
    return text + bound if gates_are_fixed(seeds) else text


def ahead(row: dict[str, Any], arm: str) -> str:
    """How far the reference of a comparison is from its arm, in words, with the verdict."""
    if round(row["mean"], 2) == 0:
        return f"level with {arm} ({ours(row)})"
    return f"{abs(row['mean']):.2f} dB {'ahead of' if row['mean'] <= 0 else 'behind'} {arm} ({ours(row)})"


def readme_demo() -> str:
    """The README's sentence on what the demo reaches, from results/demo/metrics.json."""
    found = read_json(ROOT / "results" / "demo" / "metrics.json")
    levels = list(found["searched"]["levels"])
    gains = {name: [found[name]["levels"][level] for level in levels] for name in ("searched", "hand_made")}
    shown = {
        name: [f"{means['psnr_rgb'] - means['rainy_psnr_rgb']:.1f}" for means in each] for name, each in gains.items()
    }
    searched, by_hand = shown["searched"], shown["hand_made"]
    fewer = found["hand_made"]["parameters"] < found["searched"]["parameters"]
    pictures = len(found["searched"]["pictures"]) // len(levels)
    rains = [f"{gain} dB under {level}" for gain, level in zip(searched, levels, strict=True)]
    size = "fewer" if fewer else "more"
    text = (
        f"**Result, honestly**: after that demo, on {pictures} photographs never trained on (the loss weights of its "
        f"preset were chosen on them), the searched network gains {', '.join(rains[:-1])} and {rains[-1]} synthetic "
        f"rain (PSNR, RGB), a hand-made one of {size} parameters {', '.join(by_hand[:-1])} and {by_hand[-1]} dB "
        "([every picture's score](results/demo/metrics.json)). One seed and minutes of training: this shows that the "
        "kit works, not that searching beats designing by hand. The demo took "
        f"{sentence(read_json(ROOT / 'results' / 'demo' / 'time.json'))}, after the installation."
    )
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def readme_search() -> str:
    """The README's answer on the search; the table behind it is on the page."""
    text = f"{answer()} [Table, intervals and all other arms](docs/results.md)."
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def ours(row: dict[str, Any]) -> str:
    """The verdict on the reference of a comparison, which is the searched arm."""
    return {"worse": "better", "better": "worse"}.get(row["verdict"], row["verdict"])


def undertrained(arms: dict[str, dict[str, Any]]) -> str:
    """Which arms stay below the gain that the study asks for."""
    low = [f"{name} ({facts['gain']:+.2f})" for name, facts in arms.items() if facts["gain"] < LEAST_GAIN]
    asked = (
        f"a mean gain of {LEAST_GAIN:g} dB over the rainy input, so that what is compared is not the start of training"
    )
    return f"The study asks for {asked}. " + (f"These fall short: {', '.join(low)}." if low else "Every arm has it.")


def table() -> Section:
    title, command = "A table of a whole small space", "python scripts/micro_bench.py table"
    source = "manas_course/assets/micro_bench/table.csv"
    if not (ROOT / source).exists():
        return title, [f"Not there yet: `{command}`."]
    bench = micro_bench.load()
    scores = bench.scores("val_psnr")
    best = scores.mean(1).argmax()
    rows = [
        ["architectures", str(len(bench.architectures))],
        ["seeds", str(len(bench.seeds))],
        [
            "best mean validation PSNR (RGB), picked and so too high",
            f"{scores.mean(1).max():.2f} dB, {' '.join(bench.architectures[best])}",
        ],
        ["worst", f"{scores.mean(1).min():.2f} dB"],
    ]
    if len(bench.seeds) > 1:
        spread, ceiling = micro_bench.spread(scores), micro_bench.noise_ceiling(scores)
        rows += [
            ["deviation between architectures", f"{spread.architectures:.3f} dB"],
            ["deviation between trainings of one", f"{spread.noise:.3f} dB"],
            ["noise ceiling (tau between seeds)", f"{ceiling.tau:.2f} ({ceiling.low:.2f} to {ceiling.high:.2f})"],
        ]
    supernets = bench.one_shot()
    proxies = {
        f"inherited weights, {len(supernets)} supernets": supernets,
        "parameters": bench.scores("parameters")[:, 0],
        "FLOPs": bench.scores("flops")[:, 0],
    }
    for name, proxy in proxies.items():
        tau = micro_bench.agreement(proxy, scores)
        rows.append([f"tau of {name} with a training", f"{tau.tau:+.2f} ({tau.low:+.2f} to {tau.high:+.2f})"])
    found = [micro_bench.replay(bench, each) for each in bench.gradient_searches()]
    for name, search in (("random", micro_bench.random_search), ("evolution", micro_bench.evolution)):
        baseline = [search(bench, seed, 64) for seed in range(200)]
        ahead = micro_bench.against(bench, found, baseline)
        value = f"{ahead.mean:+.2f} dB ({ahead.low:+.2f} to {ahead.high:+.2f}), {ahead.verdict}"
        rows.append([f"{len(found)} gradient searches less {name} search of the same total cost", value])
    return title, [Table("micro_bench", ["", "value"], rows, source, command)]


def known_answers() -> Section:
    """Planted problems: how often a search decides rightly, by arm."""
    title, command = "Does a search find what is known to be right?", "python scripts/known_answers.py"
    source = "results/known_answers/searches.csv"
    found = rows_of(ROOT / source)
    if not found:
        return title, [f"Not run yet: `{command}`."]
    text = (
        "Problems with a known best choice (`scripts/planted.py`), searched on the bundled photographs. A cell is the "
        "share of the places that were decided rightly, over all searches, whose number stands in brackets. *costly "
        "twin*: two modules that compute the same, of which the cheaper is right. *no signal*: two modules that are "
        "the same, where nothing is right; the cell says how often two searches of different seeds agree at a place, "
        "half by chance. `published` starts from a silent head and mixes in what may not win, as the released code "
        "does."
    )
    parts: list[str | Table] = [text]
    for size in dict.fromkeys(row["size"] for row in found):
        mine = [row for row in found if row["size"] == size]
        problems, arms = (list(dict.fromkeys(row[key] for row in mine)) for key in ("problem", "arm"))
        table_rows = []
        for arm in arms:
            cells = [[row for row in mine if row["arm"] == arm and row["problem"] == name] for name in problems]
            table_rows.append([arm, *(f"{rightness(cell):.0%} ({len(cell)})" if cell else "" for cell in cells)])
        parts.append(Table(f"known_answers_{size}", ["arm", *problems], table_rows, source, f"{command} --size {size}"))
    return title, parts


def rightness(searches: list[dict[str, str]]) -> float:
    """Return the mean share of right places; where nothing is right, how often two searches agree at a place."""
    if searches[0]["right"]:
        return fmean(float(row["right"]) for row in searches)
    pairs = itertools.combinations([row["modules"].split() for row in searches], 2)
    agree = [a == b for one, other in pairs for a, b in zip(one, other, strict=True)]
    return fmean(agree) if agree else math.nan


def blocks() -> Section:
    """Candidate blocks alone, at equal FLOPs."""
    title, command = "What is worth searching? Blocks alone, at equal FLOPs", "python scripts/blocks.py --data FOLDER"
    source = "results/blocks/runs.csv"
    found = rows_of(ROOT / source)
    if not found:
        return title, [f"Not run yet: `{command}`."]
    reference = {row["seed"]: float(row["psnr_y"]) for row in found if row["candidate"] == REFERENCE_BLOCK}
    table_rows = []
    for name in dict.fromkeys(row["candidate"] for row in found):
        mine = [row for row in found if row["candidate"] == name]
        gaps = [float(row["psnr_y"]) - reference[row["seed"]] for row in mine if row["seed"] in reference]
        shown = " ".join("diverged" if math.isnan(gap) else f"{gap:+.2f}" for gap in gaps)
        whole = mine[0]
        seconds = fmean(float(row["train_seconds"]) for row in mine)
        facts = [whole["blocks"], f"{float(whole['flops_256']) / 1e9:.2f}", f"{int(whole['parameters']):,}"]
        table_rows.append([name, *facts, f"{fmean(float(r['psnr_y']) for r in mine):.2f}", shown, f"{seconds:.0f}"])
    text = (
        "Each candidate stands alone in one frame: 2x2 pixels to channels, the blocks, a 3x3 head that starts at zero. "
        "As many blocks as come nearest to 2.5 GFLOPs, 1,500 steps, the same crops in the same order; PSNR Y on 30 "
        f"held-out pictures of Rain100L. *gap*: to `{REFERENCE_BLOCK}`, seed by seed. These are short trainings "
        "without normalisation: a block that needs normalised maps, such as the gated one, shows that here."
    )
    header = ["block", "blocks", "GFLOPs", "parameters", "PSNR Y", "gap", "CPU s to train"]
    return title, [text, Table("blocks", header, table_rows, source, command)]


def complexity() -> Section:
    title, command = "Does the complexity weight steer the result?", "python scripts/complexity.py"
    source = "results/complexity/summary.json"
    if not (ROOT / source).exists():
        return title, [f"Not run to its end yet: `{command}`."]
    found = read_json(ROOT / source)
    pairs = zip(found["weights"], found["expected_cost"]["means"], found["derived_cost"]["means"], strict=True)
    rows = [[f"{weight:g}", f"{expected:.1%}", f"{derived:.1%}"] for weight, expected, derived in pairs]
    expected, derived = found["expected_cost"], found["derived_cost"]
    text = (
        f"{found['searches']} searches. Rank correlation of weight and mean cost: {expected['spearman']:.2f} relaxed, "
        f"{derived['spearman']:.2f} derived; from the first weight to the last the cost falls by "
        f"{expected['fall']:.0%} and {derived['fall']:.0%}."
    )
    header = ["complexity weight", "expected cost", "derived cost"]
    return title, [
        Table("complexity", header, rows, source, command),
        text,
        "![cost against the complexity weight](../figures/complexity.png)",
    ]


def ablations() -> Section:
    """Every set's arms against the full method."""
    command = "python scripts/ablations.py --data FOLDER"
    text = (
        "Arms are those of notebook 06 (`notebooks/sweeps/arms.yaml`); `no_pixel` leaves out the pixel distance, L1 in "
        "this kit's presets. A search's seed is its retraining's too; `architectures` counts the different ones that "
        f"an arm's searches found. {DETECTABLE} These are short trainings, told beside the gain of `full`: where it is "
        f"below {LEAST_GAIN:g} dB, better and worse say who learns faster at first."
    )
    parts: list[str | Table] = [text]
    for name, path in FILES.items():
        if not path.exists():
            parts.append(f"{name}: not run yet: `{command}`.")
            continue
        found = ablation.comparable(ablation.read_results(path))
        architectures = {
            arm: len({run["genotype"] for run in runs})
            for arm, runs in itertools.groupby(found, key=lambda run: run["arm"])
        }
        rows = [
            [
                row["arm"],
                str(row["searches"]),
                str(architectures[row["arm"]]),
                f"{row['parameters'] / 1e6:.3f}",
                *difference(row),
            ]
            for row in differences.compare(found, "full")
        ]
        settings, full = found[0]["settings"], [run for run in found if run["arm"] == "full"]
        gain = fmean(fmean(run["images"].values()) - fmean(run["rainy"].values()) for run in full)
        parts.append(
            f"**{name}**: size {settings['size']}, {settings['search_steps']} search and {settings['retrain_steps']} "
            f"training steps, {len(found[0]['images'])} validation pictures, PSNR (RGB). `full` gains {gain:+.2f} dB."
        )
        header = ["arm", "searches", "architectures", "M parameters", "less full", *DIFFERENCE]
        parts.append(Table(f"ablations-{name}", header, rows, path.relative_to(ROOT).as_posix(), command))
    return "Which loss matters? Ablations", parts


SECTIONS: tuple[Callable[[], Section], ...] = (
    models,
    published,
    arms,
    known_answers,
    blocks,
    table,
    complexity,
    ablations,
)


def page() -> tuple[str, list[Table]]:
    """The page's text, and its tables."""
    lines = [
        "# Results",
        "",
        "Written by `make results` from the committed files; a test holds page and files equal. PSNR in dB, Y as "
        "MATLAB's `rgb2ycbcr`.",
    ]
    tables = []
    for section in SECTIONS:
        title, parts = section()
        lines += ["", f"## {title}"]
        for part in parts:
            lines += ["", part.markdown() if isinstance(part, Table) else part]
            tables += [part] if isinstance(part, Table) else []
    return "\n".join([*lines, "", CHECKLIST]), tables


def readme(path: Path = README) -> str:
    """A README with its blocks written anew."""
    text = path.read_text("utf-8")
    blocks = {"models": readme_models(), "demo": readme_demo(), "search": readme_search()}
    for name, block in ({"models": readme_models(chinese=True)} if path == CHINESE_README else blocks).items():
        first, last = f"<!-- {name}, written by make results -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(first)
        text = f"{before}{first}\n{block}\n{last}{rest.partition(last)[2]}"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text, tables = page()
    wanted = {PAGE: text, README: readme(), CHINESE_README: readme(CHINESE_README)}
    for one in tables:
        wanted |= {TABLES / f"{one.name}.csv": one.csv(), TABLES / f"{one.name}.tex": one.latex()}
    if options.check:
        stale = [path for path, content in wanted.items() if not path.exists() or path.read_text("utf-8") != content]
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what the result files say: make results")
        return bool(stale)
    for path, content in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
