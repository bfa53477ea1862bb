"""Wrong answers to the exercises, each a known misconception, and a word of what the checker must say to it."""

import numpy as np
import torch
from scipy import stats

from manas_course import micro_bench
from manas_course.downstream.boxes import iou

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


WRONG = {
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
    "mutants": [(lambda module: None, "0 of 4")],
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
