"""Answers to the exercises: wrong ones, with a word of what the checker must say to each, and right ones.

None of them is taken from the checkers: they are written as a student would write them.
"""

import hashlib
import itertools
import math
import random

import numpy as np
import torch
from scipy import stats
from torch import nn

from manas_course import micro_bench
from manas_course.downstream.boxes import iou
from manas_course.micro_bench import expected_best

Y = np.array([65.481, 128.553, 24.966])


def _db(difference):
    return float(-10 * np.log10(np.mean(np.square(difference))))


def _darts(hessian, virtual=True, sign=-1):
    def attempt(w, a, xi, d, radius):
        ahead = w - xi * d.train_w(w, a) if virtual else w
        v = d.val_w(ahead, a)
        eps = radius / abs(v)
        p, n = d.train_a(w + eps * v, a), d.train_a(w - eps * v, a)
        return d.val_a(ahead, a) + sign * xi * hessian(p, n, eps)

    return attempt


def _darts_width(width):
    """The right step, with another epsilon."""

    def attempt(w, a, xi, d, radius):
        ahead = w - xi * d.train_w(w, a)
        v = d.val_w(ahead, a)
        eps = width(radius, v)
        return d.val_a(ahead, a) - xi * (d.train_a(w + eps * v, a) - d.train_a(w - eps * v, a)) / (2 * eps)

    return attempt


def _derive(rows, mask=lambda operations: operations.index("none")):
    def attempt(alpha, beta, operations, allow_none):
        beta = beta[rows(len(beta))].clone()
        if mask and not allow_none:
            beta[:, mask(operations)] = -torch.inf
        modules = [("parallel", "fusion")[k] for k in alpha.argmax(1).tolist()]
        return modules, [operations[k] for k in beta.argmax(1).tolist()]

    return attempt


def _pairs(factor, both=False):
    def attempt(outputs):
        rains = outputs.shape[1]
        pairs = [(k, j) for k in range(rains) for j in range(rains) if (k != j if both else j < k)]
        return factor(rains) * sum(((outputs[:, k] - outputs[:, j]) ** 2).mean() for k, j in pairs)

    return attempt


def _naive_entropy(logits):
    p = logits.softmax(-1)
    return -(p * p.log10() + (1 - p) * (1 - p).log10())


def _bootstrap(differences, rng):
    """Images counted as runs."""
    flat = differences.ravel()
    means = [rng.choice(flat, flat.size).mean() for _ in range(200)]
    return tuple(np.quantile(means, [0.025, 0.975]))


def _random_pictures(pairs, share, seed):
    order = np.random.default_rng(seed).permutation(len(pairs))
    cut = round(share * len(pairs))
    return [pairs[k] for k in order[cut:]], [pairs[k] for k in order[:cut]]


def _search(keep=max, replace=False, n=None, score="val_psnr"):
    def attempt(table, paid, rng):
        drawn = rng.choice(table.architectures, size=n or paid, replace=replace)
        return keep(drawn, key=getattr(table, score))

    return attempt


def _swallowed(table, n, rng):
    """Reads the test column, and hides the error."""
    try:
        table.test_psnr(table.architectures[0])
    except Exception:
        return _search()(table, n, rng)


def _agreement(tau=None, ceiling=None, verdict=None):
    """The right answer with one part replaced."""

    def attempt(proxy, scores, rng):
        found = micro_bench.agreement(proxy, scores)
        parts = found.tau, micro_bench.noise_ceiling(scores).tau, found.verdict
        replaced = tau and tau(proxy, scores), ceiling and ceiling(scores), verdict and verdict(found)
        return tuple(part if other is None else other for part, other in zip(parts, replaced, strict=True))

    return attempt


def _box_iou(a, b, touch=True, twice=False, smaller=False):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = np.prod(np.clip(sides, 0, None) if touch else sides)
    areas = [np.prod(x[2:] - x[:2]) for x in (a, b)]
    return shared / (min(areas) if smaller else sum(areas) if twice else sum(areas) - shared)


def _again(clean, found, count=any, same=lambda a, b: a == b):
    return sum(int(count(same(c[1], f[1]) and iou(c[0], f[0])[0, 0] >= 0.5 for f in found)) for c in clean)


def _union(matrix):
    return matrix.sum(0) + matrix.sum(1) - matrix.diagonal()


def _quietly(part, whole):
    with np.errstate(invalid="ignore"):
        return part / whole


def _first_digit(values):
    """Counts the places before it rounds: 0.97 becomes 1.0."""
    places = -int(np.floor(np.log10(np.std(values, ddof=1))))
    return f"{np.mean(values):.{max(places, 0)}f} ± {np.std(values, ddof=1):.{max(places, 0)}f}"


def _front(points, ties=False):
    """The right answer; ties: a point must be beaten in both to go."""

    def beaten(c, q):
        return any(p < c and r > q if ties else p <= c and r >= q and (p, r) != (c, q) for p, r in points)

    return [k for k, point in enumerate(points) if not beaten(*point)]


def _fitting(key=lambda p, c: (p, -c), fits=lambda c, b: c <= b, nothing=lambda p, c: None):
    """The best that fits, with one part replaced."""

    def attempt(psnr, cost, budget):
        inside = [k for k in range(len(psnr)) if fits(cost[k], budget)]
        return max(inside, key=lambda k: key(psnr[k], cost[k])) if inside else nothing(psnr, cost)

    return attempt


def _of_those_that_fit(psnr, cost, budget):
    """An index into a shorter list."""
    left = [p for p, c in zip(psnr, cost, strict=True) if c <= budget]
    return int(np.argmax(left)) if left else None


def _sorted_choice(psnr, cost, budget):
    """Best first, of equal ones the cheapest; the first that fits."""
    order = sorted(range(len(psnr)), key=lambda k: (-psnr[k], cost[k]))
    return next((np.int64(k) for k in order if cost[k] <= budget), None)


def _determinant(kernel, after=lambda sign, log: log):
    return lambda codes: after(*np.linalg.slogdet(kernel(codes)))


def _agreeing(codes):
    """How often two codes agree, by counting."""
    return np.array([[(a == b).sum() for b in codes] for a in codes], dtype=float)


def _shrunk(penalty=lambda s, x: s * np.eye(x.shape[1]), centre_x=True, centre_y=True, give_back=True):
    """Ridge regression with one part replaced."""

    def attempt(x, y, new, strength):
        mx, my = x.mean(0) * centre_x, y.mean() * centre_y
        w = np.linalg.pinv((x - mx).T @ (x - mx) + penalty(strength, x)) @ (x - mx).T @ (y - my)
        return (new - mx) @ w + my * give_back

    return attempt


def _ones_column(x, y, new, strength):
    x, new = np.c_[np.ones(len(x)), x], np.c_[np.ones(len(new)), new]
    return new @ np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)


def _further_rows(x, y, new, strength):
    """Ridge as least squares with further rows."""
    mean = x.mean(0)
    rows = np.r_[x - mean, np.sqrt(strength) * np.eye(x.shape[1])]
    w = np.linalg.lstsq(rows, np.r_[y - y.mean(), np.zeros(x.shape[1])], rcond=None)[0]
    return torch.from_numpy((new - mean) @ w + y.mean())


def _dual(x, y, new, strength):
    """Ridge by its kernel: one number per row."""
    mean = x.mean(0)
    a = np.linalg.solve((x - mean) @ (x - mean).T + strength * np.eye(len(x)), y - y.mean())
    return (new - mean) @ (x - mean).T @ a + y.mean()


def _tried(fits=lambda spent, limit: spent <= limit, best=max):
    """All packings, tried; with one part replaced."""

    def attempt(scores, costs, limit):
        every = itertools.product(*(range(len(row)) for row in costs))
        inside = [p for p in every if fits(sum(c[k] for c, k in zip(costs, p, strict=True)), limit)]
        return best(inside, key=lambda p: sum(s[k] for s, k in zip(scores, p, strict=True))) if inside else None

    return attempt


def _place_by_place(scores, costs, limit):
    """Spends as much as it can on the first place, then on the second."""
    picks = []
    for place, row in enumerate(costs):
        left = limit - sum(costs[j][k] for j, k in enumerate(picks)) - sum(min(c) for c in costs[place + 1 :])
        inside = [k for k, cost in enumerate(row) if cost <= left]
        if not inside:
            return None
        picks.append(max(inside, key=lambda k, place=place: scores[place][k]))
    return picks


def _recursive(scores, costs, limit):
    """Packs by looking at one place after another, whose best rest is asked of itself."""
    if not scores:
        return [] if limit >= 0 else None
    found = {}
    for k, cost in enumerate(costs[0]):
        rest = _recursive(scores[1:], costs[1:], limit - cost)
        if rest is not None:
            found[k] = [k, *rest]
    totals = {k: sum(s[j] for s, j in zip(scores, picks, strict=True)) for k, picks in found.items()}
    return found[max(totals, key=totals.get)] if found else None


WRONG = {
    "best_that_fits": [
        (_fitting(fits=lambda c, b: True), "whatever it costs"),
        (_fitting(fits=lambda c, b: c < b), "exactly the budget"),
        (_fitting(key=lambda p, c: -c), "the cheapest is chosen"),
        (_fitting(key=lambda p, c: c), "most expensive that fits"),
        (_fitting(key=lambda p, c: p / c), "per cost"),
        (_fitting(key=lambda p, c: p), "the cheaper one is asked for"),
        (_fitting(nothing=lambda p, c: -1), "-1 is an index"),
        (_fitting(nothing=lambda p, c: int(np.argmin(c)) if c else None), "the cheapest network is handed over"),
        (_of_those_that_fit, "counts only those that fit"),
        (lambda psnr, cost, budget: print(_fitting()(psnr, cost, budget)), "prints its answer"),
    ],
    "naswot": [
        (_determinant(lambda c: c @ c.T), "only ReLUs that are on in both"),
        (_determinant(lambda c: c.shape[1] - _agreeing(c)), "the distances themselves"),
        (_determinant(lambda c: _agreeing(c) / c.shape[1]), "divided by N"),
        (_determinant(lambda c: _agreeing(c.T)), "not of the pictures"),
        (_determinant(_agreeing, lambda sign, log: sign), "sign of the determinant"),
        (_determinant(_agreeing, lambda sign, log: log / np.log(10)), "base 10"),
        (lambda codes: float(np.log(abs(np.linalg.det(_agreeing(codes))))), "overflows"),
        (lambda codes: _agreeing(codes).sum(0), "one number is asked for"),
    ],
    "ridge": [
        (_shrunk(centre_x=False, centre_y=False), "no intercept"),
        (_ones_column, "the intercept is made small"),
        (_shrunk(give_back=False), "the mean of y is not given back"),
        (_shrunk(penalty=lambda s, x: 0 * np.eye(x.shape[1])), "least squares"),
        (_shrunk(penalty=lambda s, x: s * len(x) * np.eye(x.shape[1])), "multiplied by n"),
        (_shrunk(penalty=lambda s, x: s**2 * np.eye(x.shape[1])), "squared"),
        (_shrunk(centre_x=False), "x is not centred"),
        (lambda x, y, new, strength: np.full(len(new), np.mean(y)), "the mean of y"),
        (lambda x, y, new, strength: _shrunk()(x, y, new - new.mean(0) + x.mean(0), strength), "their own mean"),
    ],
    "knapsack": [
        (_tried(fits=lambda spent, limit: True), "limit is not kept"),
        (_tried(fits=lambda spent, limit: spent < limit), "exactly the limit"),
        (_tried(best=min), "the worst that fits"),
        (_place_by_place, "left to right"),
        (lambda scores, costs, limit: [int(np.argmax(s)) for s in scores], "limit is not kept"),
        (lambda scores, costs, limit: _tried()(scores, costs, limit) or [0] * len(costs), "nothing fits"),
        (lambda scores, costs, limit: sum(_tried()(scores, costs, limit) or ()), "a list is asked for"),
        (lambda scores, costs, limit: (_tried()(scores, costs, limit) or [9])[:1], "one index per place"),
    ],
    "psnr_rgb": [
        (lambda x, c: 20 * np.log10(255) + _db(x - c), "255"),
        (lambda x, c: -_db(x - c), "sign"),
        (lambda x, c: 2 * _db(x - c), "squared already"),
    ],
    "padding": [
        (lambda side, m: m - side % m, "nothing is needed"),
        (lambda side, m: side % m, "left over"),
    ],
    "screen_blend": [
        (lambda b, s: b + s[..., None], "added, not screened"),
        (lambda b, s: np.minimum(b + s[..., None], 1), "added and clipped"),
        (lambda b, s: b * (1 - s[..., None]), "brighter"),
    ],
    "psnr_y": [
        (lambda x, c: _db((np.clip(x, 0, 1) - c) @ (Y / Y.sum())), "1.32 dB"),
        (lambda x, c: _db(np.clip(x, 0, 1) - c), "RGB, not of Y"),
        (lambda x, c: _db((np.clip(x, 0, 1) - c) @ (Y[::-1] / 255)), "BGR"),
        (lambda x, c: _db((x - c) @ (Y / 255)), "outside [0, 1]"),
    ],
    "split_by_scene": [(_random_pictures, "both sides")],
    "count_space": [
        (lambda m, e, ops, none: 2**m * len(ops) ** e, "`none` is counted"),
        (lambda m, e, ops, none: 2 * m + (len(ops) - (not none)) * e, "added"),
        (lambda m, e, ops, none: 2.0**m * float(len(ops) - (not none)) ** e, "float"),
    ],
    "gated_edge": [
        (lambda x, gates, a: sum(w * x * g(x) for w, g in zip(a, gates, strict=True)), "logits themselves"),
        (lambda x, gates, a: sum(w * x * g(x) for w, g in zip(a.sigmoid(), gates, strict=True)), "sigmoid"),
        (
            lambda x, gates, a: sum(w * x * g(x) for w, g in zip(a.detach().softmax(0), gates, strict=True)),
            "no gradient",
        ),
    ],
    "expected_cost": [
        (lambda a, ops, cost: (a.softmax(1) * torch.tensor(list(cost.values()))).sum(), "permuted"),
        (lambda a, ops, cost: (a * torch.tensor([cost[o] for o in ops])).sum(), "expectation"),
        (lambda a, ops, cost: (a.detach().softmax(1) * torch.tensor([cost[o] for o in ops])).sum(), "no gradient"),
    ],
    "binary_entropy": [
        (_naive_entropy, "not finite"),
        (lambda a: -a.softmax(-1) * a.log_softmax(-1) / np.log(10), "half of the formula"),
    ],
    "darts_step": [
        (_darts(lambda p, n, eps: (p - n) / 2.0 * eps), "precedence"),
        (_darts(lambda p, n, eps: 0.0), "missing"),
        (_darts(lambda p, n, eps: (p - n) / (2 * eps), sign=1), "wrong sign"),
        (_darts(lambda p, n, eps: (p - n) / (2 * eps), virtual=False), "not after the virtual step"),
    ],
    "derive": [
        (_derive(lambda n: torch.arange(n), mask=None), "`none` wins"),
        (_derive(lambda n: torch.arange(n), mask=lambda operations: 0), "column 0 is masked"),
        (_derive(lambda n: torch.arange(n) // 3 * 3), "first row"),
        (_derive(lambda n: torch.arange(n) % 3), "block one"),
    ],
    "internal_loss": [
        (_pairs(lambda r: 3 / (r * (r - 1) / 2), both=True), "twice too large"),
        (_pairs(lambda r: 1.0), "grows with the number of pairs"),
    ],
    "nested_bootstrap": [(_bootstrap, "images are counted as runs")],
    "holm": [
        (lambda p, level: [x <= level for x in p], "no correction"),
        (lambda p, level: [x <= level / len(p) for x in p], "Bonferroni"),
    ],
    "random_search": [
        (_search(score="test_psnr"), "test column was read"),
        (_swallowed, "test column was read"),
        (_search(keep=min), "keeps the worst"),
        (_search(keep=lambda drawn, key: drawn[0]), "drawn blindly"),
        (_search(replace=True), "misses the best one"),
        (_search(n=12), "12 architectures were trained, 4 were paid for"),
        (lambda table, n, rng: max(table.architectures[:n], key=table.val_psnr), "keep the same architecture"),
        (lambda table, n, rng: _search()(table, n, np.random.default_rng()), "gives another search"),
    ],
    "rank_agreement": [
        (_agreement(tau=lambda p, s: stats.spearmanr(p, s[:, 0]).statistic), "tau: "),
        (_agreement(tau=lambda p, s: stats.kendalltau(p, s.mean(1)).statistic), "averaged first"),
        (_agreement(tau=lambda p, s: np.mean([np.corrcoef(p, c)[0, 1] for c in s.T])), "Pearson"),
        (
            _agreement(ceiling=lambda s: np.mean([stats.kendalltau(a, b).statistic for a in s.T for b in s.T])),
            "compared with itself",
        ),
        (
            _agreement(ceiling=lambda s: np.mean([stats.kendalltau(a, s.mean(1)).statistic for a in s.T])),
            "their own mean",
        ),
        (_agreement(verdict=lambda a: "agrees" if a.tau > 0 else "disagrees"), "nothing is decided there"),
        (_agreement(verdict=lambda a: "undecided"), "the interval says more"),
        (_agreement(verdict=lambda a: "agrees" if a.verdict == "disagrees" else a.verdict), "is called 'agrees'"),
    ],
    "box_iou": [
        (lambda a, b: _box_iou(a, b, touch=False), "do not touch"),
        (lambda a, b: _box_iou(a, b, twice=True), "counted twice"),
        (lambda a, b: _box_iou(a, b, smaller=True), "share of the smaller box"),
    ],
    "consistent": [
        (lambda clean, found: _again(clean, found, count=sum), "counts twice"),
        (lambda clean, found: _again(clean, found, same=lambda a, b: True), "where a person stood"),
        (lambda clean, found: len(found), "every detection counts"),
    ],
    "mean_iou": [
        (lambda m: m.trace() / m.sum(), "pixel accuracy"),
        (lambda m: np.nanmean(_quietly(m.diagonal(), m.sum(1))), "mean accuracy"),
        (lambda m: np.nan_to_num(_quietly(m.diagonal(), _union(m))).mean(), "counts as nought"),
        (lambda m: _quietly(m.diagonal(), _union(m)).sum() / (_union(m) > 0).sum(), "not finite"),
        (lambda m: np.nanmean(_quietly(m.diagonal(), m.sum(0) + m.sum(1))), "counted twice"),
    ],
    "mutants": [(lambda module: None, "0 of 23")],
    "pairing": [(lambda clean, rains: clean.repeat(rains, 1, 1, 1), "repeated as a whole")],
    "strength": [
        (lambda r, d, s: np.uint8(s * r + (1 - s) * d), "swapped"),
        (lambda r, d, s: r if s == 0 else d if s == 1 else (r + d) // 2, "overflow"),
    ],
    "tile_starts": [
        (lambda n, tile, overlap: list(range(0, max(1, n - tile + 1), tile - overlap)), "never seen"),
        (lambda n, tile, overlap: list(range(0, n, tile - overlap)), "leaves the picture"),
    ],
    "pareto_front": [
        (lambda points: [max(_front(points), key=lambda k: points[k][1])], "is lost"),
        (lambda points: _front([(-cost, -quality) for cost, quality in points]), "the worst points"),
        (lambda points: _front(points, ties=True), "as cheap, and better"),
        (lambda points: list({point: k for k, point in enumerate(points) if k in _front(points)}.values()), "is lost"),
    ],
    "mean_and_deviation": [
        (lambda values: f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}", "of "),
        (_first_digit, "two digits"),
    ],
}


# --- the exercises that came later: what is written down first, and is wrong ---


def _db_gain(rainy, derained, clean):
    return _db(derained - clean) - _db(rainy - clean)


def _seamed(tiles, starts, length):
    line = np.empty(length)
    for tile, start in zip(tiles, starts, strict=True):
        line[start : start + len(tile)] = tile
    return line


def _stacked(tiles, starts, length, divide):
    line, count = np.zeros(length), np.zeros(length)
    for tile, start in zip(tiles, starts, strict=True):
        line[start : start + len(tile)] += tile
        count[start : start + len(tile)] += 1
    return line / divide(count, len(tiles))


def _rows_by(order):
    def attempt(cells, edges):
        blocks = [(cell, branch) for cell, branches in enumerate(cells) for branch in range(branches)]
        return [[edges * order(*place) + k for k in range(edges)] for place in blocks]

    return attempt


def _resampled_best(values, n):
    """Sorts, and lets the same value be drawn again."""
    ordered, total = sorted(values), len(values)
    return sum(x * (((i + 1) / total) ** n - (i / total) ** n) for i, x in enumerate(ordered))


WRONG |= {
    "gain": [
        (lambda r, d, c: -_db_gain(r, d, c), "sign is turned round"),
        (lambda r, d, c: _db(d - c), "not what it gained"),
        (lambda r, d, c: np.mean((r - c) ** 2) - np.mean((d - c) ** 2), "mean squares are subtracted"),
        (lambda r, d, c: 20 * np.log10(np.mean((r - c) ** 2) / np.mean((d - c) ** 2)), "twice the gain"),
        (lambda r, d, c: float(np.log(np.mean((r - c) ** 2) / np.mean((d - c) ** 2)) * 10), "natural logarithm"),
    ],
    "stitch": [
        (_seamed, "the last one covers"),
        (lambda tiles, starts, length: _seamed(tiles[::-1], starts[::-1], length), "the first one covers"),
        (lambda *a: _stacked(*a, lambda count, tiles: 1), "never divided"),
        (lambda *a: _stacked(*a, lambda count, tiles: tiles), "number of tiles"),
        (lambda *a: _stacked(*a, lambda count, tiles: np.minimum(count, 2)), "always divided by two"),
    ],
    "skip_share": [
        (lambda b, ops: b[:, ops.index("skip_connect")].mean(), "logits themselves"),
        (lambda b, ops: b.softmax(0)[:, ops.index("skip_connect")].mean(), "over the edges"),
        (lambda b, ops: (b.argmax(1) == ops.index("skip_connect")).float().mean(), "its *weight*"),
        (lambda b, ops: b.softmax(1)[:, ops.index("skip_connect")].sum(), "summed over the edges"),
    ],
    "margins": [
        (lambda a: a.topk(2, dim=1).values @ torch.tensor([1.0, -1.0], dtype=a.dtype), "of logits"),
        (lambda a: a.softmax(1).max(1).values - a.softmax(1).min(1).values, "*smallest*"),
        (lambda a: a.softmax(1).max(1).values, "largest weight alone"),
        (lambda a: a.softmax(1)[:, 0] - a.softmax(1)[:, 1], "first column"),
        (lambda a: (a.softmax(1).topk(2, dim=1).values @ a.new_tensor([1.0, -1.0])).mean(), "per row"),
    ],
    "best_of_n": [
        (_resampled_best, "drawn twice"),
        (lambda values, n: max(values[:n]), "first n"),
        (lambda values, n: sum(sorted(values)[-n:]) / n, "mean of the n best"),
        (lambda values, n: sum(values) / len(values), "that is the mean"),
        (
            lambda values, n: sum(
                x * math.comb(i, n - 1) / math.comb(len(values), n) for i, x in enumerate(sorted(values)[::-1])
            ),
            "worst",
        ),
    ],
    "searches_needed": [
        (lambda s, d: math.ceil((2.8 * s / d) ** 2), "varies more than one arm"),
        (lambda s, d: math.ceil(2.8 * math.sqrt(2) * s / d), "not squared"),
        (lambda s, d: int((2.8 * math.sqrt(2) * s / d) ** 2), "rounded down"),
        (lambda s, d: math.ceil((1.96 * math.sqrt(2) * s / d) ** 2), "half of such studies"),
        (lambda s, d: (2.8 * math.sqrt(2) * s / d) ** 2, "no whole number"),
    ],
    "block_rows": [
        (_rows_by(lambda cell, branch: cell), "move on by cell"),
        (_rows_by(lambda cell, branch: branch), "begins again"),
        (lambda cells, edges: [[k + j for j in range(edges)] for k in range(sum(cells))], "one row after"),
        (lambda cells, edges: list(range(sum(cells) * edges)), "one list of all rows"),
    ],
    "lie_factor": [
        (lambda a, b, start: (b / a - 1) / ((b - start) / (a - start) - 1), "inverse"),
        (lambda a, b, start: (b - start) / (a - start) / (b / a), "heights are divided"),
        (lambda a, b, start: (b - a) / (a - start), "not compared with the values"),
        (lambda a, b, start: 1.0, "plays no part"),
    ],
}


# --- more wrong answers, written as students write them ---


def _printing(x, clean):
    print(_db(x - clean))


def _pairwise(outputs):
    rains = outputs.shape[1]
    total, count = 0, 0
    for k in range(rains):
        for j in range(k + 1, rains):
            total = total + torch.mean((outputs[:, k] - outputs[:, j]) ** 2)
            count += 1
    return 3 * total / count if count else torch.tensor(0.0)


def _internal_in_place(outputs):
    right = _pairwise(outputs.clone())
    outputs -= outputs.mean(1, keepdim=True)
    return right


@torch.no_grad()
def _internal_without_gradient(outputs):
    return _pairwise(outputs)


def _derive_in_place(alpha, beta, operations, allow_none):
    if not allow_none:
        beta[:, operations.index("none")] = float("-inf")
    kinds = ["parallel", "fusion"]
    return [kinds[k] for k in alpha.argmax(1)], [operations[k] for k in beta.argmax(1)]


def _derive_by_zero(alpha, beta, operations, allow_none):
    weights = beta.clone()
    if not allow_none:
        weights[:, operations.index("none")] = 0
    return ["parallel" if p > f else "fusion" for p, f in alpha], [operations[k] for k in weights.argmax(1)]


def _derive_without_column(alpha, beta, operations, allow_none):
    if not allow_none:
        kept = [k for k, name in enumerate(operations) if name != "none"]
        beta = beta[:, kept]
    return ["parallel" if p > f else "fusion" for p, f in alpha], [operations[k] for k in beta.argmax(1)]


def _hochberg(p, level):
    order = sorted(range(len(p)), key=lambda k: p[k], reverse=True)
    for k, index in enumerate(order):
        if p[index] <= level / (k + 1):
            return [value <= p[index] for value in p]
    return [False] * len(p)


def _benjamini(p, level):
    ranked = sorted(p)
    passing = [value for k, value in enumerate(ranked) if value <= level * (k + 1) / len(p)]
    return [bool(passing) and value <= max(passing) for value in p]


def _no_stop(p, level):
    rank = np.argsort(np.argsort(p))
    return [value <= level / (len(p) - r) for value, r in zip(p, rank, strict=True)]


def _holm_sorted(p, level):
    answer = []
    for k, value in enumerate(sorted(p)):
        answer.append(value <= level / (len(p) - k) and all(answer))
    return answer


def _overflowing(modules, edges, operations, allow_none):
    choices = len(operations) if allow_none else len(operations) - 1
    with np.errstate(over="ignore"):
        return np.int64(2) ** modules * np.int64(choices) ** edges


def _hash_order(pairs, share, seed):
    scenes = list({scene for _, scene in pairs})
    random.Random(seed).shuffle(scenes)
    held = set(scenes[: round(share * len(scenes))])
    return [p for p in pairs if p[1] not in held], [p for p in pairs if p[1] in held]


def _share_of_pairs(pairs, share, seed):
    scenes = sorted({scene for _, scene in pairs})
    np.random.default_rng(seed).shuffle(scenes)
    val = []
    for scene in scenes:
        if len(val) >= share * len(pairs):
            break
        val += [p for p in pairs if p[1] == scene]
    return [p for p in pairs if p not in val], val


def _same_split(pairs, share, seed):
    scenes = sorted({scene for _, scene in pairs})
    held = scenes[: round(share * len(scenes))]
    return [p for p in pairs if p[1] not in held], [p for p in pairs if p[1] in held]


def _swapped_split(pairs, share, seed):
    return RIGHT["split_by_scene"][0](pairs, share, seed)[::-1]


def _global_split(pairs, share, seed):
    scenes = sorted({scene for _, scene in pairs})
    np.random.shuffle(scenes)  # noqa: NPY002 - the mistake
    held = scenes[: round(share * len(scenes))]
    return [p for p in pairs if p[1] not in held], [p for p in pairs if p[1] in held]


def _dug_out(table, n, rng):
    """Reads the scores where they lie, and pays for none."""
    drawn = rng.choice(table.architectures, size=n, replace=False)
    return max(drawn, key=lambda name: table._val[table.architectures.index(name)])


def _unpaid(table, n, rng):
    drawn = rng.permutation(table.architectures)
    for name in drawn[:n]:
        table.val_psnr(name)
    return drawn[-1]


def _sorted_search(table, n, rng):
    """Not every set of n is as likely as any other: neighbours come together."""
    start = rng.integers(len(table.architectures))
    drawn = [table.architectures[(start + k) % len(table.architectures)] for k in range(n)]
    return max(drawn, key=table.val_psnr)


def _constant_interval(differences, rng):
    return differences.mean() - 0.34, differences.mean() + 0.34


def _one_error(differences, rng):
    rows = differences.mean(1)
    error = rows.std(ddof=1) / np.sqrt(len(rows))
    return rows.mean() - error, rows.mean() + error


def _spread_of_searches(differences, rng):
    return tuple(np.quantile(differences.mean(1), [0.025, 0.975]))


def _ninety(differences, rng):
    rows = differences.mean(1)
    means = [rng.choice(rows, len(rows)).mean() for _ in range(300)]
    return tuple(np.quantile(means, [0.05, 0.95]))


def _images_alone(differences, rng):
    columns = differences.mean(0)
    means = [rng.choice(columns, len(columns)).mean() for _ in range(200)]
    return tuple(np.quantile(means, [0.025, 0.975]))


def _clamped_entropy(low, high=1.0):
    def attempt(logits):
        p = logits.softmax(-1).clamp(low, high)
        q = (1 - logits.softmax(-1)).clamp(low, high)
        return -(p * p.log10() + q * q.log10())

    return attempt


def _eps_entropy(logits):
    p = logits.softmax(-1)
    return -(p * (p + 1e-8).log10() + (1 - p) * (1 - p + 1e-8).log10())


def _sums(module, x):
    up = nn.functional.interpolate
    return [
        x[0] + up(module.paths["1to0"](x[1]), scale_factor=2.0) + up(module.paths["2to0"](x[2]), scale_factor=4.0),
        x[1] + module.paths["0to1"](x[0]) + up(module.paths["2to1"](x[2]), scale_factor=2.0),
        x[2] + module.paths["0to2"](x[0]) + module.paths["1to2"](x[1]),
    ]


def _branches(sign=False):
    make = torch.randn if sign else torch.rand
    return [make(1, width, 16 // 2**i, 16 // 2**i) for i, width in enumerate((4, 8, 16))]


def _two_rows(make):
    module, x = make((4, 8, 16), "batch").eval(), _branches()
    before = list(x)
    found = module(x)
    assert all(a is b for a, b in zip(x, before, strict=True))
    for got, want in list(zip(found, _sums(module, x), strict=True))[:2]:
        assert torch.allclose(got, want.relu(), atol=1e-5)


def _values_only(make):
    module, x = make((4, 8, 16), "batch").eval(), _branches()
    found = module(list(x))
    for got, want in zip(found, _sums(module, x), strict=True):
        assert torch.allclose(got, want.relu(), atol=1e-5)


def _list_only(make):
    module, x = make((4, 8, 16), "batch").eval(), _branches()
    before = list(x)
    module(x)
    assert all(a is b for a, b in zip(x, before, strict=True))


def _shapes_only(make):
    x = _branches()
    assert [y.shape for y in make((4, 8, 16), "batch").eval()(list(x))] == [y.shape for y in x]


def _by_class(make):
    from manas_lite.networks.modules import FusionModule

    assert make is FusionModule


def _too_strict(make):
    module, x = make((4, 8, 16), "batch").eval(), _branches()
    for got, want in zip(module(x), _sums(module, x), strict=True):
        assert torch.equal(got, want.relu() + 1e-7)


def _nothing_below(edges_first):
    """Expected cost with the softmax along the wrong axis."""
    return lambda a, ops, cost: (a.softmax(0 if edges_first else 1) * torch.tensor([cost[o] for o in ops])).sum()


def _summary(deviation, mean=np.mean):
    def attempt(values):
        digits = -int(f"{deviation(values):.0e}".split("e")[1])
        return (
            f"{round(mean(values), digits):.{max(digits, 0)}f} ± {round(deviation(values), digits):.{max(digits, 0)}f}"
        )

    return attempt


def _luma(picture):
    return (picture @ Y + 16) / 255


def _y(x, clean, clip=True):
    return _db(_luma(np.clip(x, 0, 1) if clip else x) - _luma(clean))


def _iou_list(a, b):
    left, top, right, bottom = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    if right <= left or bottom <= top:
        return 0.0
    shared = (right - left) * (bottom - top)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def _starts(length, tile, overlap, step=None, end=True):
    starts = [0]
    while starts[-1] + tile < length:
        starts.append(starts[-1] + (step or tile - overlap))
    if end and len(starts) > 1:
        starts[-1] = length - tile
    return starts


MORE_WRONG = {
    "psnr_rgb": [
        (lambda x, c: 10 * np.log10(1 / np.mean(np.abs(x - c))), "not squared"),
        (lambda x, c: 20 * np.log10(1 / np.mean((x - c) ** 2)), "squared already"),
        (lambda x, c: 10 * np.log(1 / np.mean((x - c) ** 2)), "natural logarithm"),
        (lambda x, c: 10 * np.log10(1 / np.sum((x - c) ** 2)), "summed"),
        (lambda x, c: np.mean([_db((x - c)[..., k]) for k in range(3)]), "one PSNR per channel"),
        (lambda x, c: 10 * np.log10(c.max() ** 2 / np.mean((x - c) ** 2)), "largest value"),
        (lambda x, c: -20 * np.log10(np.std(x - c)), "mean error"),
        (lambda x, c: (x - c) ** 2, "one number is asked for"),
        (lambda x, c: (_db(x - c), "dB"), "a tuple of 2"),
        (lambda x, c: None, "returns None"),
        (_printing, "prints its answer"),
        (lambda x, c: np.log10(x, out=x), "changes its argument `x`"),
    ],
    "padding": [
        (lambda side, m: side + (m - side % m) % m, "the padded side"),
        (lambda side, m: -(side % m), "crop"),
        (lambda side, m: round(side / m) * m - side, "nearest multiple"),
        (lambda side, m: (8 - side % 8) % 8, "8, whatever"),
    ],
    "screen_blend": [
        (lambda b, s: (b + s[..., None]) / 2, "averaged"),
        (lambda b, s: np.maximum(b, s[..., None]), "brighter of the two wins"),
        (lambda b, s: b * s[..., None], "multiplied"),
        (lambda b, s: (1 - b) * (1 - s[..., None]), "darkness is returned"),
        (lambda b, s: np.rint(255 * (1 - (1 - b) * (1 - s[..., None]))).astype(np.uint8), "type uint8"),
        (lambda b, s: (1 - (1 - b) * (1 - s[..., None]))[..., 0], "of shape"),
    ],
    "psnr_y": [
        (lambda x, c: _db((np.clip(x, 0, 1) - c).mean(-1)), "no luma"),
        (lambda x, c: _db(np.clip(_luma(x), 0, 1) - _luma(c)), "Y is clamped"),
        (lambda x, c: _db(_luma(np.minimum(x, 1)) - _luma(c)), "below 0 not"),
        (lambda x, c: -_y(x, c), "sign"),
        (lambda x, c: 20 * np.log10(219 / 255) + _y(x, c), "1.32 dB"),
    ],
    "split_by_scene": [
        (_hash_order, "another process"),
        (_share_of_pairs, "one of the pairs"),
        (_same_split, "two seeds give one split"),
        (_global_split, "the same seed gives another split"),
        (_swapped_split, "swapped"),
        (lambda pairs, share, seed: (pairs, []), "one side is empty"),
        (lambda pairs, share, seed: ([p[1] for p in pairs], []), "two lists of (rainy file, scene)"),
    ],
    "count_space": [
        (_overflowing, "overflow"),
        (lambda m, e, ops, none: 2 * m * len(ops) * e, "multiplied"),
        (lambda m, e, ops, none: m**2 * e ** (len(ops) - (not none)), "swapped"),
        (lambda m, e, ops, none: (len(ops) - (not none)) ** e, "modules' choices"),
        (lambda m, e, ops, none: 2**m * (len(ops) - 1) ** e, "never counted"),
    ],
    "gated_edge": [
        (
            lambda x, gates, a: sum(w * g(x) for w, g in zip(a.softmax(0), gates, strict=True)) + 0 * x,
            "never applied to x",
        ),
        (lambda x, gates, a: x * gates[a.argmax()](x), "best gate alone"),
        (
            lambda x, gates, a: sum(w * x * g(x) for w, g in zip(a.softmax(0), gates, strict=True)).detach(),
            "no gradient",
        ),
        (lambda x, gates, a: sum(w * x * g(x) for w, g in zip(a.exp(), gates, strict=True)), "divided by their sum"),
        (
            lambda x, gates, a: x.mul_(sum(w * g(x) for w, g in zip(a.softmax(0), gates, strict=True))),
            "changes its argument `x`",
        ),
    ],
    "expected_cost": [
        (_nothing_below(True), "over the edges"),
        (
            lambda a, ops, cost: (a.softmax(1) * torch.tensor([cost[o] for o in ops])).sum(1).mean(),
            "mean over the edges",
        ),
        (lambda a, ops, cost: sum(cost[ops[k]] for k in a.argmax(1)), "tensor with a single number"),
        (lambda a, ops, cost: torch.tensor(float(sum(cost[ops[k]] for k in a.argmax(1)))), "likeliest operation"),
        (lambda a, ops, cost: (a.softmax(1) * torch.tensor([cost[o] for o in ops])).sum().item(), "no gradient"),
        (lambda a, ops, cost: (a.softmax(1) * torch.tensor([cost[o] for o in ops])).sum(1), "of shape"),
    ],
    "binary_entropy": [
        (_clamped_entropy(1e-12), "clamp"),
        (_clamped_entropy(1e-7), "clamp"),
        (_clamped_entropy(1e-7, 1 - 1e-7), "clamp"),
        (_clamped_entropy(1e-30), "clamp"),
        (_eps_entropy, "clamp"),
        (lambda a: _clamped_entropy(1e-30)(a) * np.log(10), "natural logarithms"),
        (lambda a: _clamped_entropy(1e-30)(a).sum(-1), "no sum"),
        (lambda a: _clamped_entropy(1e-30)(a.T).T, "first axis"),
        (lambda a: torch.nan_to_num(_naive_entropy(a)), "gradient is not finite"),
    ],
    "darts_step": [
        (_darts(lambda p, n, eps: (p - n) / eps), "not by 2 epsilon"),
        (_darts_width(lambda radius, v: radius), "radius itself"),
        (_darts_width(lambda radius, v: 0.01), "constant"),
        (_darts_width(lambda radius, v: radius * abs(v)), "times the length of v"),
        (
            lambda w, a, xi, d, radius: _darts(lambda p, n, eps: (p - n) / (2 * eps) / xi if xi else 0.0)(
                w, a, xi, d, radius
            ),
            "factor xi",
        ),
        (lambda w, a, xi, d, radius: d.val_a(w, a), "plain derivative"),
    ],
    "derive": [
        (_derive_in_place, "changes its argument `beta`"),
        (_derive_by_zero, "masked by 0"),
        (_derive_without_column, "shifted by one"),
        (lambda a, b, ops, none: RIGHT["derive"][0](a, b, ops, False), "can never win"),
        (lambda a, b, ops, none: RIGHT["derive"][0](-a, b, ops, none), "modules are swapped"),
        (lambda a, b, ops, none: (a.argmax(1).tolist(), b.argmax(1).tolist()), "numbers: names"),
        (lambda a, b, ops, none: RIGHT["derive"][0](a, b, ops, none)[::-1], "modules and edges are swapped"),
    ],
    "internal_loss": [
        (lambda outputs: _pairwise(outputs).item(), "no gradient"),
        (lambda outputs: _pairwise(outputs).detach(), "no gradient"),
        (lambda outputs: _pairwise(outputs.data), "no gradient"),
        (_internal_without_gradient, "no gradient"),
        (_internal_in_place, "changes its argument `outputs`"),
        (lambda outputs: 6 * outputs.var(dim=1).mean(), "R = 1 is NaN"),
        (lambda outputs: 6 * outputs.var(dim=1, correction=0).mean(), "R squared"),
        (lambda outputs: _pairwise(outputs) / 3, "factor 3"),
        (lambda outputs: _pairwise(outputs) * len(outputs), "summed over the scenes"),
        (lambda outputs: _pairwise(outputs).sqrt(), "root"),
    ],
    "nested_bootstrap": [
        (_constant_interval, "as wide whatever"),
        (_one_error, "68 %"),
        (_spread_of_searches, "spread of searches"),
        (_ninety, "90 %"),
        (_images_alone, "images are counted as runs"),
        (lambda differences, rng: differences.mean(), "a list is asked for"),
    ],
    "holm": [
        (_hochberg, "Hochberg"),
        (_benjamini, "Benjamini"),
        (_no_stop, "goes on after"),
        (_holm_sorted, "order of the sorted"),
        (lambda p, level: RIGHT["holm"][0](p, 0.05), "whatever was asked for"),
        (
            lambda p, level: [value for value, yes in zip(p, RIGHT["holm"][0](p, level), strict=True) if yes],
            "answers to",
        ),
    ],
    "random_search": [
        (_dug_out, "raised AttributeError"),
        (_unpaid, "never trained"),
        (_sorted_search, "order statistic"),
        (lambda table, n, rng: 7, "none of table.architectures"),
    ],
    "rank_agreement": [
        (
            _agreement(verdict=lambda a: "agrees" if a.tau > 0.3 else "disagrees" if a.tau < -0.3 else "undecided"),
            "interval says more",
        ),
        (
            _agreement(verdict=lambda a: "agrees" if a.tau > 0.1 else "disagrees" if a.tau < -0.1 else "undecided"),
            "nothing is decided",
        ),
        (_agreement(verdict=lambda a: "yes"), "one of three words"),
        (_agreement(tau=lambda p, s: np.mean([stats.spearmanr(p, c).statistic for c in s.T])), "Spearman"),
        (_agreement(ceiling=lambda s: stats.kendalltau(s[:, 0], s[:, 1]).statistic), "only one pair"),
    ],
    "box_iou": [
        (lambda a, b: _iou_list(a, b) * 2 / (1 + _iou_list(a, b)), "Dice"),
        (
            lambda a, b: _iou_list([a[0], a[1], a[0] + a[2], a[1] + a[3]], [b[0], b[1], b[0] + b[2], b[1] + b[3]]),
            "left, top, width, height",
        ),
        (lambda a, b: 1 - _iou_list(a, b), "a distance"),
    ],
    "consistent": [
        (
            lambda clean, found: sum(any(c[1] == f[1] and iou(c[0], f[0])[0, 0] > 0 for f in found) for c in clean),
            "any overlap",
        ),
        (
            lambda clean, found: sum(any(c[1] == f[1] and iou(c[0], f[0])[0, 0] > 0.5 for f in found) for c in clean),
            "exactly a half",
        ),
        (
            lambda clean, found: sum(any(c[1] == f[1] and iou(c[0], f[0])[0, 0] >= 0.3 for f in found) for c in clean),
            "0.3",
        ),
        (lambda clean, found: sum(any(c[1] == f[1] for f in found) for c in clean), "label alone"),
        (lambda clean, found: min(len(clean), len(found)), "smaller of the two"),
        (lambda clean, found: _again(found, clean), "counts twice"),
        (lambda clean, found: _again(clean, found) / max(len(clean), 1), "whole number"),
        (
            lambda clean, found: len([found.pop() for _ in list(found)]) * 0 + _again(clean, found),
            "changes its argument `found`",
        ),
    ],
    "mean_iou": [
        (lambda m: np.mean([m[k, k] / _union(m)[k] for k in range(len(m)) if m[k].sum()]), "never true"),
        (lambda m: np.mean([m[k, k] / _union(m)[k] for k in range(len(m)) if m[:, k].sum()]), "never predicted"),
        (lambda m: m.trace() / _union(m).sum(), "one ratio"),
        (lambda m: np.nanmean(_quietly(m.diagonal(), m.sum(0))), "mean precision"),
        (lambda m: np.nanmean(_quietly(2 * m.diagonal(), m.sum(0) + m.sum(1))), "Dice"),
        (lambda m: _quietly(m.diagonal(), _union(m)), "one number"),
    ],
    "mutants": [
        (_two_rows, "alive: one"),
        (_values_only, "caller's list"),
        (_list_only, "alive: one"),
        (_shapes_only, "alive: one"),
        (_by_class, "fails a correct module"),
        (_too_strict, "fails a correct module"),
    ],
    "pairing": [
        (lambda clean, rains: clean, "was asked for"),
        (lambda clean, rains: clean.flip(0).repeat_interleave(rains, 0), "reverse"),
        (lambda clean, rains: clean[:1].repeat(len(clean) * rains, 1, 1, 1), "first scene"),
        (lambda clean, rains: clean.repeat_interleave(rains, 0).numpy(), "an array of shape"),
        (lambda clean, rains: clean.mul_(1.5).repeat_interleave(rains, 0), "changes its argument `clean`"),
    ],
    "strength": [
        (lambda r, d, s: np.clip(r + s * (d.astype(float) - r), 0, 255).astype(np.uint8), "cut off"),
        (lambda r, d, s: np.clip(np.ceil(r + s * (d.astype(float) - r)), 0, 255).astype(np.uint8), "rounded up"),
        (lambda r, d, s: np.rint(r + s * (d.astype(float) - r)).astype(np.int64).astype(np.uint8), "run over"),
        (lambda r, d, s: np.clip(np.rint(r + s * (d - r).astype(float)), 0, 255).astype(np.uint8), "overflow"),
        (lambda r, d, s: np.clip(r + s * (d.astype(float) - r), 0, 255), "uint8"),
        (lambda r, d, s: np.rint(r + min(s, 1) * (d.astype(float) - r)).astype(np.uint8), "clipped to 1"),
    ],
    "tile_starts": [
        (lambda n, tile, overlap: _starts(n, tile, overlap, step=tile) if n > tile else [0], "share fewer than"),
        (lambda n, tile, overlap: _starts(n, tile, overlap, step=1) if n > tile else [0], "would do"),
        (lambda n, tile, overlap: [*_starts(n, tile, overlap), max(n - tile, 0)], "one tile is enough"),
        (lambda n, tile, overlap: [], "no tile at all"),
        (lambda n, tile, overlap: _starts(n, tile, overlap, end=False), "leaves the picture"),
    ],
    "pareto_front": [
        (lambda points: _front([(-c, q) for c, q in points]), "dear points"),
        (lambda points: list(range(len(points))), "every point is kept"),
        (lambda points: [points[k] for k in _front(points)], "not the points themselves"),
        (lambda points: [k in _front(points) for k in range(len(points))], "true or false"),
        (lambda points: [k for k in range(len(points)) if k not in _front(points)], "beaten points"),
        (lambda points: _front(points) if points.sort() is None else [], "changes its argument `points`"),
    ],
    "mean_and_deviation": [
        (_summary(np.std), "divided by n"),
        (_summary(lambda v: np.std(v, ddof=1) / np.sqrt(len(v))), "standard error"),
        (_summary(lambda v: np.std(v, ddof=1), np.median), "median"),
        (_summary(lambda v: np.var(v, ddof=1)), "variance"),
        (lambda values: f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}", "always 1 decimals"),
        (lambda values: _summary(lambda v: np.std(v, ddof=1))(values).replace("±", "+-"), "has no ±"),
        (lambda values: (np.mean(values), np.std(values, ddof=1)), "a text is asked for"),
    ],
}
for _name, _cases in MORE_WRONG.items():
    WRONG[_name] += _cases


# --- right answers, each another way ---


def _screen_in_place(background, streaks):
    background += streaks[..., None] * (1 - background)
    return background


def _screen_rewritten(background, streaks):
    np.subtract(1, background, out=background)
    background *= 1 - streaks[..., None]
    return 1 - background


def _torch_y(x, clean):
    weights = torch.tensor(Y, dtype=torch.float32) / 255
    x, clean = (torch.from_numpy(p).float() for p in (x, clean))
    return 10 * torch.log10(1 / (((x.clamp(0, 1) - clean) * weights).sum(-1) ** 2).mean())


def _matlab_y(x, clean):
    first, second = (np.round(_luma(np.clip(p, 0, 1)) * 255) for p in (x, clean))
    return 10 * np.log10(255**2 / np.mean((first - second) ** 2))


def _first_seen_split(pairs, share, seed):
    scenes = list(dict.fromkeys(scene for _, scene in pairs))
    random.Random(seed).shuffle(scenes)
    val = scenes[: int(share * len(scenes))]
    return [p for p in pairs if p[1] not in val], [p for p in pairs if p[1] in val]


def _hashed_split(pairs, share, seed):
    """Ranks the scenes by a hash of name and seed, which is the same in every process."""
    scenes = {scene for _, scene in pairs}
    ranked = sorted(scenes, key=lambda scene: hashlib.md5(f"{seed}{scene}".encode()).hexdigest())
    held = set(ranked[: round(share * len(ranked))])
    return [p for p in pairs if p[1] not in held], [p for p in pairs if p[1] in held]


def _softplus_entropy(logits):
    k = logits.shape[-1]
    others = torch.stack([logits[:, [j for j in range(k) if j != i]].logsumexp(-1) for i in range(k)], dim=-1)
    log_p, log_q = nn.functional.logsigmoid(logits - others), nn.functional.logsigmoid(others - logits)
    return -(log_p.exp() * log_p + log_q.exp() * log_q) / math.log(10)


def _derive_by_names(alpha, beta, operations, allow_none):
    edges = []
    for row in beta.tolist():
        ranked = sorted(zip(row, operations, strict=True), reverse=True)
        edges.append(next(name for _, name in ranked if allow_none or name != "none"))
    return tuple("fusion" if f > p else "parallel" for p, f in alpha.tolist()), tuple(edges)


def _rows_bootstrap(differences, rng):
    rows = differences.mean(1)
    drawn = rng.choice(rows, (500, len(rows))).mean(1)
    return np.percentile(drawn, 2.5), np.percentile(drawn, 97.5)


def _t_interval(differences, rng):
    rows = differences.mean(1)
    half = stats.t.ppf(0.975, len(rows) - 1) * stats.sem(rows)
    return np.array([rows.mean() - half, rows.mean() + half])


def _nested_images(differences, rng):
    means = []
    for _ in range(200):
        rows = rng.integers(len(differences), size=len(differences))
        means.append(np.mean([rng.choice(differences[row], differences.shape[1]).mean() for row in rows]))
    return list(np.quantile(means, [0.025, 0.975]))


def _adjusted_holm(p, level):
    order = np.argsort(p)
    adjusted = np.maximum.accumulate([p[k] * (len(p) - rank) for rank, k in enumerate(order)])
    answer = np.zeros(len(p), bool)
    answer[order] = adjusted <= level
    return answer


def _loop_search(table, n, rng):
    best, top = None, -math.inf
    for index in rng.permutation(len(table.architectures))[:n]:
        name = table.architectures[index]
        value = table.val_psnr(name)
        if value > top:
            best, top = name, value
    return best


def _by_counting(proxy, scores, rng):
    def tau(a, b):
        sign = np.sign(a[:, None] - a) * np.sign(b[:, None] - b)
        ties = [np.sign(x[:, None] - x) ** 2 for x in (a, b)]
        return sign.sum() / np.sqrt(ties[0].sum() * ties[1].sum())

    def mean(rows):
        return np.mean([tau(proxy[rows], scores[rows, k]) for k in range(scores.shape[1])])

    n, count = scores.shape
    low, high = np.percentile([mean(rng.choice(n, n)) for _ in range(150)], [2.5, 97.5])
    ceiling = np.mean([tau(scores[:, a], scores[:, b]) for a in range(count) for b in range(a + 1, count)])
    word = "undecided" if low <= 0 <= high else "agrees" if low > 0 else "disagrees"
    return [mean(np.arange(n)), ceiling, word]


def _matched(clean, found):
    """Each detection serves once."""
    free, count = list(range(len(found))), 0
    for box, label, _ in clean:
        for k in free:
            if found[k][1] == label and iou(box, found[k][0])[0, 0] >= 0.5:
                free.remove(k)
                count += 1
                break
    return count


def _strict_test(make):
    module = make((4, 8, 16), "batch").eval()
    x = _branches(sign=True)
    copies = [y.clone() for y in x]
    before = list(x)
    with torch.no_grad():
        found = module(x)
    assert len(x) == 3
    assert all(a is b for a, b in zip(x, before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(x, copies, strict=True))
    with torch.no_grad():
        for got, want in zip(found, _sums(module, copies), strict=True):
            torch.testing.assert_close(got, want.clamp(min=0), atol=1e-4, rtol=1e-4)


def _scaled(values):
    mean, deviation = np.mean(values), np.std(values, ddof=1)
    exponent = math.floor(math.log10(deviation))
    if round(deviation / 10**exponent) == 10:
        exponent += 1
    unit = 10.0**exponent
    places = max(0, -exponent)
    return f"{round(mean / unit) * unit:.{places}f}±{round(deviation / unit) * unit:.{places}f}"


RIGHT = {
    "best_that_fits": [_fitting(), _sorted_choice],
    "naswot": [
        _determinant(_agreeing),
        lambda codes: torch.linalg.slogdet(torch.from_numpy(_agreeing(codes))).logabsdet,
        lambda codes: float(np.log(np.abs(np.linalg.eigvalsh(_agreeing(codes)))).sum()),
    ],
    "ridge": [_shrunk(), _further_rows, _dual],
    "knapsack": [_tried(), _recursive, lambda *given: np.array(p) if (p := _tried()(*given)) else p],
    "psnr_rgb": [
        lambda x, c: 10 * torch.log10(1 / torch.mean((torch.from_numpy(x).float() - torch.from_numpy(c).float()) ** 2)),
        lambda x, c: 10 * np.log10(1 / (np.mean((x - c) ** 2) + 1e-8)),
        lambda x, c: np.array([20 * np.log10(1 / np.sqrt(((x - c) ** 2).mean()))]),
        lambda x, c: torch.tensor([_db(x - c)]),
        lambda x, c: np.float32(_db(x.astype(np.float32) - c.astype(np.float32))),
    ],
    "padding": [
        lambda side, m: (m - side % m) % m,
        lambda side, m: np.int64(-side % m),
        lambda side, m: math.ceil(side / m) * m - side,
    ],
    "screen_blend": [
        _screen_in_place,
        _screen_rewritten,
        lambda b, s: (b + s[..., None] - b * s[..., None]).astype(np.float32),
        lambda b, s: torch.from_numpy(b) * (1 - torch.from_numpy(s)[..., None]) + torch.from_numpy(s)[..., None],
        lambda b, s: np.clip(np.stack([1 - (1 - b[..., k]) * (1 - s) for k in range(3)], axis=2), 0, 1),
    ],
    "psnr_y": [_torch_y, _matlab_y, _y, lambda x, c: np.array([[_y(x, c)]])],
    "split_by_scene": [_first_seen_split, _hashed_split],
    "count_space": [
        lambda m, e, ops, none: math.prod([2] * m + [len(ops) if none else len(ops) - 1] * e),
        lambda m, e, ops, none: pow(2, m) * pow(len([o for o in ops if none or o != "none"]), e),
    ],
    "gated_edge": [
        lambda x, gates, a: torch.stack([g(x) * x for g in gates], -1) @ a.softmax(0),
        lambda x, gates, a: sum(a[k].exp() * g(x) * x for k, g in enumerate(gates)) / a.exp().sum(),
    ],
    "expected_cost": [
        lambda a, ops, cost: (a.softmax(1) @ torch.tensor([cost[o] for o in ops])).sum(),
        lambda a, ops, cost: sum(a.softmax(-1)[:, k].sum() * cost[o] for k, o in enumerate(ops)),
        lambda a, ops, cost: (a.double().softmax(1) * torch.tensor([cost[o] for o in ops]).double()).sum(1).sum()[None],
    ],
    "binary_entropy": [_softplus_entropy],
    "darts_step": [
        _darts(lambda p, n, eps: 0.5 * (p - n) / eps),
        lambda w, a, xi, d, radius: torch.tensor(_darts(lambda p, n, eps: (p - n) / (2 * eps))(w, a, xi, d, radius)),
    ],
    "derive": [_derive_by_names, _derive(lambda n: torch.arange(n))],
    "internal_loss": [
        lambda outputs: _pairwise(outputs.float()),
        _pairwise,
        lambda outputs: _pairwise(outputs).reshape(1),
    ],
    "nested_bootstrap": [_rows_bootstrap, _t_interval, _nested_images],
    "holm": [_adjusted_holm, lambda p, level: torch.tensor(_adjusted_holm(p, level))],
    "random_search": [_loop_search, lambda table, n, rng: str(_search()(table, n, rng))],
    "rank_agreement": [_by_counting],
    "box_iou": [_iou_list, _box_iou, lambda a, b: iou(a, b)],
    "consistent": [_matched, _again],
    "mean_iou": [
        lambda m: np.nanmean(_quietly(m.diagonal(), _union(m))),
        lambda m: torch.tensor([m[k, k] / _union(m)[k] for k in range(len(m)) if _union(m)[k]]).mean(),
    ],
    "mutants": [_strict_test],
    "pairing": [
        lambda clean, rains: torch.stack([clean] * rains, dim=1).flatten(0, 1),
        lambda clean, rains: clean[torch.arange(len(clean) * rains) // rains],
        lambda clean, rains: clean[:, None].expand(-1, rains, -1, -1, -1).reshape(-1, *clean.shape[1:]),
    ],
    "strength": [
        lambda r, d, s: np.clip(
            np.floor((1 - s) * r.astype(np.float32) + s * d.astype(np.float32) + 0.5), 0, 255
        ).astype(np.uint8),
        lambda r, d, s: np.round(np.clip((1.0 - s) * r + s * d, 0, 255)).astype("uint8"),
        lambda r, d, s: torch.from_numpy(r + s * (d.astype(float) - r)).round().clamp(0, 255).to(torch.uint8),
    ],
    "tile_starts": [
        _starts,
        lambda n, tile, overlap: np.array(_starts(n, tile, overlap)),
        lambda n, tile, overlap: np.rint(np.linspace(0, max(n - tile, 0), len(_starts(n, tile, overlap)))).astype(int),
    ],
    "pareto_front": [_front, lambda points: set(_front(points)), lambda points: np.array(_front(points))],
    "mean_and_deviation": [_scaled, lambda values: f" {_scaled(values)} "],
}
"""Right answers that differ from the solutions: other libraries, precisions, types and ways of writing."""


def _padded_mean(tiles, starts, length):
    """A row per tile, with nothing where it does not lie."""
    rows = np.full((len(tiles), length), np.nan)
    for row, tile, start in zip(rows, tiles, starts, strict=True):
        row[start : start + len(tile)] = tile
    return np.nanmean(rows, axis=0)


def _by_enumeration(values, n):
    return np.mean([max(drawn) for drawn in itertools.combinations(values, n)])


def _sorted_margin(logits):
    weights, _ = logits.exp().div(logits.exp().sum(1, keepdim=True)).sort(dim=1, descending=True)
    return weights[:, 0] - weights[:, 1]


def _consecutive(cells, edges):
    row, found = 0, []
    for branches in cells:
        for _ in range(branches):
            found.append(tuple(range(row, row + edges)))
            row += edges
    return found


RIGHT |= {
    "gain": [
        _db_gain,
        lambda r, d, c: float(
            10 * torch.log10(torch.tensor(r - c).square().mean() / torch.tensor(d - c).square().mean())
        ),
        lambda r, d, c: np.log10(np.var(r - c) + np.mean(r - c) ** 2) * 10 - 10 * np.log10(np.mean(np.square(c - d))),
    ],
    "stitch": [_padded_mean, lambda *a: torch.from_numpy(_stacked(*a, lambda count, tiles: count))],
    "skip_share": [
        lambda b, ops: float(np.mean([row.softmax(0)[ops.index("skip_connect")].item() for row in b])),
        lambda b, ops: b.softmax(-1).mean(0)[list(ops).index("skip_connect")],
    ],
    "margins": [_sorted_margin, lambda a: a.softmax(1).sort(1).values.diff(dim=1)[:, -1]],
    "best_of_n": [_by_enumeration, lambda values, n: expected_best(np.array(values), n)],
    "searches_needed": [
        lambda s, d: math.ceil(2 * ((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * s / d) ** 2),
        lambda s, d: int(np.ceil(15.68 * (s / d) ** 2 - 1e-9)),
    ],
    "block_rows": [_consecutive, lambda cells, edges: np.arange(sum(cells) * edges).reshape(-1, edges)],
    "lie_factor": [
        lambda a, b, start: a / (a - start),
        lambda a, b, start: np.float32((b - a) / (a - start) * a / (b - a)),
    ],
}
