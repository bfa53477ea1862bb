"""Drawings of the course's ideas: each made by code, once for light pages and once for dark ones, with a text for ears.

    diagrams.bilevel_loop()      # as the last value of a cell: the page's mode decides which of the two is seen

All share one canvas, 700 units wide, so that letters have one size and stay readable where a page shows 700 pixels.
"""

import base64
import functools
import html
import io
from collections.abc import Callable
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from manas_lite.draw.style import Drawing, styled

__all__ = [
    "Diagram",
    "attention_block",
    "bilevel_loop",
    "hypergradients",
    "multi_to_one",
    "nested_bootstrap",
    "supernet_to_network",
    "trunk",
    "weight_sharing",
]

WIDTH = 700
"""Units of a drawing's width: pixels of 1/100 inch."""
LETTERS = 9.0
"""Points: 12.5 pixels where the drawing is 700 pixels wide."""


class Ink(NamedTuple):
    """The colours of one mode: paper, ink, an accent, and (fill, edge) of the kinds of box."""

    paper: str
    ink: str
    accent: str
    kinds: dict[str, tuple[str, str]]


LIGHT = Ink(
    "#FFFFFF",
    "#1A1A1A",
    "#A83E00",
    {
        "grey": ("#ECECEC", "#777777"),
        "blue": ("#D3E7F4", "#0072B2"),
        "orange": ("#FBE6B8", "#B87A00"),
        "green": ("#D2EDE2", "#00735A"),
    },
)
DARK = Ink(
    "#16181D",
    "#F2F2F2",
    "#FF9A5C",
    {
        "grey": ("#2C2F36", "#9A9EA5"),
        "blue": ("#123A54", "#56B4E9"),
        "orange": ("#493507", "#E69F00"),
        "green": ("#0C4233", "#2BC59A"),
    },
)


class Diagram:
    """A drawing in two modes. A notebook shows the one that fits the page, and reads out `alt` where nobody looks."""

    def __init__(self, alt: str, light: Figure, dark: Figure) -> None:
        """Keep what the picture says in words (`alt`), and its two figures."""
        self.alt, self.light, self.dark = alt, light, dark

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        light, dark = (_encoded(figure) for figure in (self.light, self.dark))
        source = f'<source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{dark}">'
        image = f'<img alt="{html.escape(self.alt)}" width="{WIDTH}" style="max-width: 100%"'
        page = f'<picture>{source}{image} src="data:image/png;base64,{light}"></picture>'
        return {"text/html": page, "image/png": light, "text/plain": self.alt}


def _encoded(figure: Figure) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=140, facecolor=figure.get_facecolor(), metadata={"Software": None})
    return base64.b64encode(content.getvalue()).decode()


class Box(NamedTuple):
    """A box on a canvas, by its middle and its size, with the points where arrows meet it."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> tuple[float, float]:
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y

    @property
    def top(self) -> tuple[float, float]:
        return self.x, self.y + self.height / 2

    @property
    def bottom(self) -> tuple[float, float]:
        return self.x, self.y - self.height / 2


class Canvas:
    """A sheet of WIDTH x height units, y upwards, on which boxes, arrows and words are put in one mode's colours."""

    def __init__(self, ink: Ink, height: float) -> None:
        self.ink = ink
        self.figure = Drawing(figsize=(WIDTH / 100, height / 100), facecolor=ink.paper)
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(0, height))
        self.axes.axis("off")

    def text(self, x: float, y: float, words: str, *, accent: bool = False, size: float = LETTERS, **more: Any) -> None:
        """Write words in the middle of (x, y), unless `ha` or `va` say otherwise."""
        look: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "color": self.ink.accent if accent else self.ink.ink,
            "size": size,
        }
        self.axes.text(x, y, words, **(look | {"linespacing": 1.25} | more))

    def box(self, x: float, y: float, width: float, height: float, words: str = "", kind: str = "grey") -> Box:
        """Draw a box around (x, y) with words in it."""
        fill, edge = self.ink.kinds[kind]
        style = {"boxstyle": "round,pad=0,rounding_size=6", "fc": fill, "ec": edge, "lw": 1.2, "zorder": 2}
        self.axes.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, **style))  # type: ignore[arg-type]
        if words:
            self.text(x, y, words, zorder=4)
        return Box(x, y, width, height)

    def arrow(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        *,
        bend: float = 0.0,
        accent: bool = False,
        **more: Any,
    ) -> None:
        """Draw an arrow; `bend` is how far it bows, as a share of its length."""
        colour = self.ink.accent if accent else self.ink.ink
        look = {"arrowstyle": "-|>", "color": colour, "lw": 1.2, "shrinkA": 1, "shrinkB": 1, "mutation_scale": 10}
        way = look | {"connectionstyle": f"arc3,rad={bend}"} | more
        self.axes.annotate("", end, start, arrowprops=way, zorder=3)

    def line(self, xs: tuple[float, ...], ys: tuple[float, ...], kind: str = "grey", **more: Any) -> None:
        """Draw a line through points in the colour of a kind's edge."""
        look: dict[str, Any] = {"lw": 1.2, "solid_capstyle": "round"} | more
        self.axes.plot(xs, ys, color=self.ink.kinds[kind][1], **look)


def _diagram(height: float, alt: str) -> Callable[[Callable[[Canvas], None]], Callable[[], Diagram]]:
    """Make a function that draws on a canvas into one that returns the Diagram of both modes."""

    def decorate(draw: Callable[[Canvas], None]) -> Callable[[], Diagram]:
        @styled
        def drawn(ink: Ink) -> Figure:
            canvas = Canvas(ink, height)
            draw(canvas)
            return canvas.figure

        @functools.wraps(draw)
        def diagram() -> Diagram:
            return Diagram(alt, drawn(LIGHT), drawn(DARK))

        del diagram.__wrapped__  # it is called without the canvas
        return diagram

    return decorate


@_diagram(
    240,
    "The bilevel loop. Two steps take turns. The weights w take a step on one half of the training scenes, with "
    "the architecture held. Then the architecture alpha, beta takes a step on the other half, with the weights "
    "held. After the last epoch the architecture is derived.",
)
def bilevel_loop(c: Canvas) -> None:
    """Draw the two steps of a bilevel search, which take turns."""
    weights = c.box(150, 130, 190, 64, "step of the weights $w$\nalong $-\\nabla_w L_{train}$", "blue")
    choice = c.box(550, 130, 190, 64, "step of the architecture $a$\nalong $-\\nabla_a L_{val}$", "orange")
    c.arrow((245, 145), (455, 145), bend=-0.25)
    c.arrow((455, 115), (245, 115), bend=-0.25)
    c.text(350, 198, "the weights have followed:\nnow judge the mixture", ha="center")
    c.text(350, 62, "the mixture has changed:\nnow train its weights", ha="center")
    half = c.box(150, 30, 190, 30, "training scenes, half A", "grey")
    other = c.box(550, 30, 190, 30, "training scenes, half B", "grey")
    c.arrow(half.top, weights.bottom)
    c.arrow(other.top, choice.bottom)
    c.text(150, 178, "$a = (\\alpha, \\beta)$ is held")
    c.text(550, 178, "$w$ is held")


@_diagram(
    250,
    "From a supernet to a network, in three pictures of the same two places with three candidates each. In the "
    "supernet all candidates have equal weight. After the search one line at each place is thick, the others "
    "thin: a mixture. In the derived network only the thickest line of each place is left. It is then trained "
    "anew.",
)
def supernet_to_network(c: Canvas) -> None:
    """Draw how a supernet becomes a mixture, and the mixture a network."""
    titles = (
        "supernet: all candidates,\nequal weights",
        "mixture: after the search\nthe weights differ",
        "derived: the strongest\nof each place",
    )
    kept = ("orange", "blue")
    for k, (title, widths) in enumerate(zip(titles, ((3, 3, 3), (8, 2, 1), (8, 0, 0)), strict=True)):
        left = 25 + 240 * k
        c.text(left + 85, 222, title)
        for place, colour in enumerate(kept):
            start = left + 85 * place
            order = widths if place == 0 else (widths[1], widths[2], widths[0])
            for width, lift in zip(order, (48, 0, -48), strict=True):
                strongest = width == max(widths) and k > 0
                if width:
                    xs = (start, start + 25, start + 60, start + 85)
                    c.line(xs, (120, 120 + lift, 120 + lift, 120), colour if strongest else "grey", lw=width * 0.75)
        for node in range(3):
            c.axes.plot(left + 85 * node, 120, "o", color=c.ink.ink, markersize=7, zorder=5)
    c.arrow((205, 120), (255, 120))
    c.arrow((445, 120), (495, 120))
    c.text(230, 136, "search")
    c.text(470, 136, "derive")
    names = (
        "$w = 0.33,\\ 0.33,\\ 0.33$",
        "$w = 0.70,\\ 0.20,\\ 0.10$",
        "one candidate per place;\nit is trained from scratch",
    )
    for k, words in enumerate(names):
        c.text(110 + 240 * k, 34, words)


@_diagram(
    320,
    "The multi-scale trunk. A stem leads into three cells. The first cell works on two branches, the second on "
    "three, the third on four. Each further branch has half the height and width of the one above. In each cell "
    "four searched modules, P or F, are followed by an attention block on every branch. At the end all branches "
    "are fused into the first one.",
)
def trunk(c: Canvas) -> None:
    """Draw the backbone with its three cells and four branches."""
    rows = (250, 190, 130, 70)
    for k, (row, size) in enumerate(zip(rows, ("full size", "1/2", "1/4", "1/8"), strict=True)):
        c.text(8, row, f"branch {k}\n{size}", ha="left")
    stem = c.box(105, rows[0], 44, 30, "stem", "grey")
    c.line((stem.right[0], 640), (rows[0], rows[0]))
    for k in range(1, 4):
        begin = 145 + 150 * (k - 1)
        c.line((begin, begin + 28, 600), (rows[k - 1], rows[k], rows[k]))
        c.line((600, 620), (rows[k], rows[0]))
    for cell in range(3):
        last, x = rows[cell + 1], 205 + 150 * cell
        c.box(x, (rows[0] + last) / 2, 50, rows[0] - last + 40, "P\nor\nF\n× 4", "blue")
        c.text(x + 15, 294, f"cell {cell + 1}: {cell + 2} branches")
        for row in rows[: cell + 2]:
            c.box(x + 50, row, 34, 26, "att", "orange")
    c.box(648, rows[0], 56, 30, "fusion", "green")
    c.line((676, 695), (rows[0], rows[0]))
    c.text(
        8,
        20,
        "searched: modules, P (parallel) or F (fusion), and the edges inside each attention block (att)",
        ha="left",
    )


@_diagram(
    306,
    "An attention block with two groups. The channels of x are cut into F0 and F1. Edge o00 gates F0 and gives "
    "U0. Edge o10 gates F1, edge o11 gates U0, and their sum is U1. A squeeze-and-excitation of F0 plus F1 joins "
    "them. All three are projected, added to x, and gated once more.",
)
def attention_block(c: Canvas) -> None:
    """Draw the attention block with K = 2."""
    x = c.box(40, 160, 50, 34, "$x$", "grey")
    first, second = c.box(130, 230, 60, 34, "$F_0$", "blue"), c.box(130, 130, 60, 34, "$F_1$", "blue")
    c.arrow(x.right, first.left)
    c.arrow(x.right, second.left)
    upper, lower = c.box(320, 230, 60, 34, "$U_0$", "green"), c.box(320, 130, 60, 34, "$U_1$", "green")
    shared = c.box(290, 50, 140, 34, "SE$(F_0 + F_1)$", "grey")
    for start, end in ((first.right, upper.left), (second.right, lower.left), (upper.bottom, lower.top)):
        c.arrow(start, end, accent=True, lw=1.8)
    c.text(225, 246, "edge $o_{00}$", accent=True)
    c.text(248, 147, "edge $o_{10}$", accent=True)
    c.text(328, 180, "edge $o_{11}$", accent=True, ha="left")
    c.arrow((152, 213), (252, 67))
    c.arrow(second.bottom, shared.left, bend=0.2)
    join = c.box(470, 160, 90, 44, "join and\nproject", "grey")
    for box in (upper, lower, shared):
        c.arrow(box.right, join.left)
    plus = c.box(570, 160, 34, 34, "+", "grey")
    c.arrow(join.right, plus.left)
    out = c.box(650, 160, 56, 34, "SE", "grey")
    c.arrow(plus.right, out.left)
    c.line((40, 40, 570), (177, 280, 280))
    c.arrow((570, 280), plus.top)
    c.text(450, 291, "$x$ itself passes by")
    c.text(560, 40, "thick arrows: the three searched\nedges, each one of nine gates", accent=True)


@_diagram(
    290,
    "A multi-to-one scene. Three rainy versions of one background go through one and the same network and give "
    "three outputs. The external loss compares each output with the one clean picture. The internal loss compares "
    "the outputs with each other and needs no clean picture. A batch holds several such scenes.",
)
def multi_to_one(c: Canvas) -> None:
    """Draw a scene with three rains, one network, and the two losses."""
    rows = (220, 150, 80)
    net = c.box(265, 150, 90, 180, "one\nnetwork", "orange")
    clean = c.box(600, 150, 96, 44, "clean $Y$", "green")
    for k, (row, rain) in enumerate(zip(rows, ("light", "medium", "heavy"), strict=True), start=1):
        rainy = c.box(85, row, 120, 40, f"{rain} rain", "blue")
        output = c.box(400, row, 70, 40, f"$T_{k}$", "grey")
        c.arrow(rainy.right, (net.left[0], row))
        c.arrow((net.right[0], row), output.left)
        c.arrow(output.right, clean.left)
    c.text(505, 236, "external loss:\neach against $Y$")
    for upper, lower in ((200, 170), (130, 100)):
        c.arrow((400, upper), (400, lower), accent=True, arrowstyle="<|-|>")
    c.arrow((365, 208), (365, 92), bend=0.3, accent=True, arrowstyle="<|-|>")
    c.text(465, 62, "internal loss: every two\noutputs should agree", accent=True, ha="left")
    c.text(8, 268, "one background, $R = 3$ rains", ha="left")
    c.text(
        8, 22, "a batch holds $B$ such scenes: $B \\times R$ rainy pictures, compared with $B$ clean ones", ha="left"
    )


@_diagram(
    310,
    "How weight sharing ranks backwards. On the left a circle: candidate A is a little ahead by luck, so it gets "
    "more weight in the mixture, so the shared weights are trained for A, so A looks better still. On the right "
    "the ranking of two candidates: with inherited weights A is on top and B at the bottom; trained alone, B is "
    "ahead of A.",
)
def weight_sharing(c: Canvas) -> None:
    """Draw the circle by which a supernet makes the rich richer, and the ranking that comes out."""
    c.text(205, 290, "one set of weights, shared by all candidates")
    ahead = c.box(205, 245, 196, 36, "A is a little ahead, by luck", "grey")
    more = c.box(330, 155, 130, 48, "A gets more\nweight", "orange")
    shared = c.box(205, 62, 170, 48, "the shared weights\nare trained for A", "orange")
    better = c.box(80, 155, 130, 48, "A looks\nbetter still", "orange")
    c.arrow((270, 226), (320, 180), bend=-0.15)
    c.arrow((325, 130), (270, 87), bend=-0.15)
    c.arrow((140, 87), (85, 130), bend=-0.15)
    c.arrow((100, 180), (150, 226), bend=-0.15)
    c.text(205, 155, "again and\nagain", accent=True)
    assert ahead.y > more.y == better.y > shared.y
    c.text(482, 245, "with inherited\nweights")
    c.text(632, 245, "trained\nalone")
    for start, end, name, kind in ((200, 100, "A", "orange"), (100, 200, "B", "blue")):
        c.line((500, 614), (start, end), kind, lw=2.5)
        for x, y in ((482, start), (632, end)):
            c.box(x, y, 36, 32, name, kind)
    c.text(557, 40, "the order is turned round:\nKendall's tau below 0", accent=True)
    c.line((415, 415), (25, 290), lw=0.8)


@_diagram(
    300,
    "Three hypergradients. First order takes the gradient where the weights stand, as if they did not follow. "
    "Finite difference takes a step to w prime, and compares the gradient at two points, a little ahead of w and "
    "behind it. Exact also takes the step, and differentiates through it. They cost one, four and two passes.",
)
def hypergradients(c: Canvas) -> None:
    """Draw what first order, finite difference and exact each look at."""
    names = ("first order", "finite difference", "exact")
    costs = ("1 pass", "4 passes", "2 passes, one of them\ndifferentiated twice")
    ideas = (
        "$w$ stands still:\nthe second term is left out",
        "second term: two points\nbeside $w$ are compared",
        "second term: the step\nis differentiated",
    )
    for k, (name, idea, cost) in enumerate(zip(names, ideas, costs, strict=True)):
        left = 10 + 233 * k
        c.box(left + 107, 150, 214, 280, kind="grey")
        c.text(left + 107, 270, name, weight="bold", size=10.5, zorder=4)
        y = 180
        c.axes.plot(left + 50, y, "o", color=c.ink.ink, markersize=9, zorder=5)
        c.text(left + 50, y - 25, "$w$", zorder=4)
        if k:
            c.arrow((left + 56, y), (left + 160, y))
            c.axes.plot(left + 166, y, "o", color=c.ink.ink, markersize=9, zorder=5)
            c.text(left + 166, y - 25, "$w'$", zorder=4)
        point = left + (166 if k else 50)
        c.arrow((point, y + 8), (point, y + 55), accent=True, lw=1.8)
        c.text(
            point + (-9 if k else 9), y + 48, "$\\nabla_a L_{val}$", accent=True, ha="right" if k else "left", zorder=4
        )
        if k == 1:
            for lift in (-18, 18):
                c.axes.plot(left + 50 + lift, y + 14, "D", color=c.ink.accent, markersize=5, zorder=5)
            c.text(left + 50, y + 34, "$w \\pm \\varepsilon v$", accent=True, zorder=4)
        if k == 2:
            c.arrow((left + 160, y + 7), (left + 56, y + 7), bend=0.45, accent=True)
        c.text(left + 107, 105, idea, zorder=4)
        c.text(left + 107, 48, cost, zorder=4)


@_diagram(
    290,
    "A nested bootstrap. Three searches have four pictures each. A resample draws searches with replacement, here "
    "search 1, 3 and 3 again, and within each drawn search its pictures with replacement. The mean of the "
    "resample is kept. A few hundred such means give the interval.",
)
def nested_bootstrap(c: Canvas) -> None:
    """Draw how searches are redrawn first, and pictures within them."""
    rows = (215, 145, 75)
    c.text(18, 265, "three searches, four pictures each", ha="left")
    c.text(395, 265, "one resample")
    drawn = ((1, (1, 1, 3, 4)), (3, (2, 3, 4, 4)), (3, (1, 2, 2, 3)))
    kinds = ("blue", "orange", "green")
    for k, row in enumerate(rows):
        c.box(60, row, 84, 40, f"search {k + 1}", kinds[k])
        c.text(112, row, "1  2  3  4", ha="left", family="DejaVu Sans Mono")
        number, pictures = drawn[k]
        c.box(350, row, 84, 40, f"search {number}", kinds[number - 1])
        c.text(402, row, "  ".join(map(str, pictures)), ha="left", family="DejaVu Sans Mono", accent=True)
        c.arrow((212, rows[number - 1]), (306, row), accent=number - 1 != k)
    mean = c.box(590, 145, 120, 44, "mean of the\nresample", "grey")
    for row in rows:
        c.arrow((488, row), mean.left)
    c.text(590, 205, "repeat a few\nhundred times")
    c.arrow(mean.bottom, (590, 80))
    c.text(590, 56, "2.5 % and 97.5 %\nof the means")
    c.text(
        8,
        20,
        "first the searches are drawn, then pictures of each; a search that is not drawn gives no pictures",
        ha="left",
    )
