"""Pictures of the table: what is drawn is what was given."""

import sys
from itertools import pairwise

import numpy as np
import pytest

from manas_course.micro_bench import figures


def lines(figure, gid: str):
    return [line for line in figure.axes[0].get_lines() if line.get_gid() == gid]


def test_the_mean_is_a_step_function_of_cost() -> None:
    runs = [([60.0, 180.0], [0.0, 1.0]), ([120.0, 240.0], [2.0, 4.0])]
    figure = figures.best_so_far({"one": runs}, best=5.0)
    (mean,) = lines(figure, "mean:one")
    assert mean.get_xdata().tolist() == [2.0, 3.0, 4.0]  # minutes; from 2 on both runs hold something
    assert mean.get_ydata().tolist() == [1.0, 1.5, 2.5]
    assert mean.get_drawstyle() == "steps-post"
    assert [line.get_xdata().tolist() for line in lines(figure, "run:one")] == [[1.0, 3.0], [2.0, 4.0]]
    assert any(5.0 in line.get_ydata() for line in figure.axes[0].get_lines())


def test_many_runs_become_a_band_that_holds_eight_of_ten() -> None:
    runs = [([60.0, 120.0], [k, k]) for k in range(11)]
    figure = figures.best_so_far({"many": runs})
    assert lines(figure, "run:many") == []
    (band,) = figure.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (1.0, 9.0)


def test_no_runs_are_refused() -> None:
    for runs in ({}, {"one": []}):
        with pytest.raises(ValueError, match="no runs"):
            figures.best_so_far(runs)


def test_the_map_shows_every_number_under_its_names() -> None:
    pytest.importorskip("seaborn", reason="needs the extra: pip install 'manas_lite[course]'")
    from matplotlib import pyplot

    values = np.array([[0.5, -1.25], [2.0, -0.001], [0.1, 0.2]])  # no number is "-0.00"
    figure = figures.table_map(values, ["a", "b", "c"], ["x", "y"], title="t")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["+0.50", "-1.25", "+2.00", "+0.00", "+0.10", "+0.20"]
    assert [text.get_color() == "white" for text in axes.texts] == [False, True, False, True, True, True]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "y"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert [label.get_rotation() for label in axes.get_yticklabels()] == [0, 0, 0]
    assert axes.transData.transform((0, 0.5))[1] > axes.transData.transform((0, 1.5))[1]  # "a" on top
    assert pyplot.get_fignums() == []  # seaborn knows pyplot, and leaves it alone
    with pytest.raises(ValueError, match="3 rows and 1 columns"):
        figures.table_map(values, ["a", "b", "c"], ["x"], title="t")


def test_the_map_names_the_extra_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "seaborn", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'manas_lite\[course\]'"):
        figures.table_map([[1.0]], ["a"], ["x"], title="t")


def test_clouds_share_their_axis() -> None:
    panels = {"left": ([1, 2], [3, 4]), "right": ([5, 6], [7, 9])}
    figure = figures.clouds(panels, shade=[0, 1], shade_label="s", x=["a", "b"], y="c")
    left, right, _ = figure.axes
    assert left.get_ylim() == right.get_ylim()
    assert right.collections[0].get_offsets().tolist() == [[5.0, 7.0], [6.0, 9.0]]


@pytest.mark.parametrize(("labels", "told"), [(["a", "b", "b"], True), (["a", "b", "c"], False)])
def test_clouds_with_one_label_say_that_their_scales_differ(labels: list[str], told: bool) -> None:
    panels = {name: ([1, 20 * k + 2], [3, 4]) for k, name in enumerate("xyz")}
    figure = figures.clouds(panels, shade=[0, 1], shade_label="s", x=labels, y="c")
    assert (figure.get_supxlabel() != "") == told


def test_labels_of_clouds_stay_apart() -> None:
    panels = {f"supernet {k}, which ranks best": ([21.0, 23.8], [3, 4]) for k in range(3)}
    figure = figures.clouds(panels, shade=[0, 1], shade_label="s", x=["PSNR with inherited weights, dB"] * 3, y="c")
    figure.draw_without_rendering()
    for words in (lambda axes: axes.xaxis.label, lambda axes: axes._left_title):
        places = [words(axes).get_window_extent() for axes in figure.axes[:3]]
        assert all(one.x1 < two.x0 for one, two in pairwise(places))


def test_the_front_steps_along_what_nothing_beats() -> None:
    """A copy of a member is drawn once; what ties in cost or quality and is worse in the other is beaten."""
    cost, quality = [3, 1, 2, 2, 4, 5, 1], [7, 2, 5, 4, 7, 9, 2]
    figure = figures.front(cost, quality, x="c", y="q", title="t")
    (members,) = lines(figure, "front:members")
    assert members.get_xydata().tolist() == [[1, 2], [2, 5], [3, 7], [5, 9]]
    (front,) = lines(figure, "front")
    assert front.get_drawstyle() == "steps-post"
    assert front.get_xydata().tolist()[-1] == [5, 9]


def test_undecided_agreements_are_hollow_and_say_so() -> None:
    taus = {"good": (0.4, 0.3, 0.5), "none": (0.1, -0.1, 0.3), "reversed": (-0.4, -0.5, -0.3)}
    axes = figures.agreements(taus, (0.6, 0.5, 0.7)).axes[0]
    assert [text.get_text() for text in axes.texts] == ["+0.40", "+0.10  undecided", "-0.40"]
    dots = [line.get_markerfacecolor() for line in axes.get_lines() if line.get_marker() == "o"]
    assert [dot == "white" for dot in dots] == [False, True, False]


@pytest.mark.parametrize("count", [1, 9])
def test_legends_lie_beside_what_they_explain(count: int) -> None:
    """However many rows or runs there are, and wherever their lines lie."""
    taus = {f"proxy {k}": (0.1 * k, 0.1 * k - 0.2, 0.1 * k + 0.2) for k in range(count)}
    runs = {f"kind {k}": [([60.0, 120.0], [0.0, 0.1 * k])] for k in range(count)}
    for figure in (figures.agreements(taus, (0.6, 0.5, 0.7)), figures.best_so_far(runs, best=0.05)):
        figure.draw_without_rendering()
        (legend,) = figure.legends
        assert legend.get_window_extent().y1 <= figure.axes[0].xaxis.label.get_window_extent().y0
