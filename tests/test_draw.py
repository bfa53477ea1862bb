"""Figures hold the data they were given: boxes, labels, line widths, values; never pixels."""

import itertools
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from manas_lite import draw
from manas_lite.draw import lanes, style
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.modules import MODULES
from manas_lite.networks.ops import OPERATIONS, PUBLISHED_OPERATIONS
from manas_lite.networks.space import SearchSpace
from manas_lite.rain import rain_scene

SPACES = {
    "paper": SearchSpace.preset("paper"),
    "teach": SearchSpace.preset("teach"),
    "three groups": SearchSpace((6, 12, 18), 1, groups=3),
    "few operations": SearchSpace.preset("smoke", operations=("none", "skip_connect", "SE")),
    "no attention": SearchSpace.preset("smoke", attention=False),
}


def marked(figure: Figure, kind: str) -> dict[str, object]:
    """Artists by their id, of one kind."""
    artists = [a for a in figure.findobj() if (a.get_gid() or "").startswith(f"{kind}:")]
    return {a.get_gid(): a for a in artists}


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


def luminance(colour: str) -> float:
    """How bright a colour is in grey: 0 black, 1 white."""
    return float(np.dot(matplotlib.colors.to_rgb(colour), (0.299, 0.587, 0.114)))


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("name", SPACES)
def test_a_genotype_is_drawn_module_by_module_and_edge_by_edge(name):
    space = SPACES[name]
    genotype = Genotype.random(space, 3)
    figure = draw.architecture(genotype)
    boxes = marked(figure, "module")
    assert set(boxes) == {f"module:{i}:{m}" for i, m in enumerate(genotype.modules)}
    for row, module in enumerate(genotype.modules):
        colour = boxes[f"module:{row}:{module}"].get_facecolor()
        assert to_hex(colour).upper() == style.MODULE_COLOURS[module]
    edges = marked(figure, "edge")
    assert set(edges) == {f"edge:{i}:{e}" for i, e in enumerate(genotype.edges)}
    names = [edges[f"edge:{i}:{e}"].get_text() for i, e in enumerate(genotype.edges)]
    assert [name.replace("\n", "") for name in names] == list(genotype.edges)
    assert all(len(line) <= lanes.LONGEST for name in names for line in name.split("\n"))
    assert len(marked(figure, "attention")) == len(space.block_branch)
    written = " ".join(texts(figure))
    assert all(f"{width} channels" in written for width in space.channels)
    assert genotype.id in written


def test_modules_span_the_branches_of_their_cell_and_blocks_sit_on_their_own():
    space = SPACES["paper"]
    figure = draw.architecture(Genotype.hand_made(space))
    boxes = marked(figure, "module")
    heights = [boxes[f"module:{i}:{m}"].get_height() for i, m in enumerate(Genotype.hand_made(space).modules)]
    steps = {branches: heights[space.module_branches.index(branches)] for branches in space.cells}
    assert steps[2] < steps[3] < steps[4]
    assert all(height == steps[branches] for height, branches in zip(heights, space.module_branches, strict=True))
    blocks = [a for _, a in sorted(marked(figure, "attention").items(), key=lambda kv: int(kv[0].split(":")[1]))]
    lanes = sorted({round(block.get_y(), 6) for block in blocks}, reverse=True)
    assert [lanes.index(round(block.get_y(), 6)) for block in blocks] == list(space.block_branch)


@pytest.mark.parametrize("name", SPACES)
def test_a_mixtures_line_widths_are_its_weights(name):
    space = SPACES[name]
    rng = np.random.default_rng(0)
    alpha = rng.dirichlet(np.ones(2), len(space.module_branches))
    beta = rng.dirichlet(np.ones(len(space.operations)), len(space.edge_branch))
    figure = draw.mixture(torch.tensor(alpha), beta, space)
    for row, weights in enumerate(alpha):
        for module, weight in zip(("parallel", "fusion"), weights, strict=True):
            lines = [a for a in figure.findobj() if a.get_gid() == f"module:{row}:{module}"]
            branches = space.module_branches[row]
            assert len(lines) == (branches if module == "parallel" else branches * (branches - 1))
            assert all(line.get_linewidth() == pytest.approx(lanes.THICK * weight) for line in lines)
    strokes = marked(figure, "edge")
    assert len(strokes) == beta.size
    for row, weights in enumerate(beta):
        for operation, weight in zip(space.operations, weights, strict=True):
            stroke = strokes[f"edge:{row}:{operation}"]
            assert stroke.get_linewidth() == pytest.approx(lanes.THICK * weight)
            assert stroke.get_color() == style.OPERATION_LOOKS[operation][0]


def overlapping(artists: list) -> list[tuple[str, str]]:
    """Pairs of texts or legends that share more than a pixel."""
    boxes = [(str(artist), artist.get_window_extent().padded(-0.5)) for artist in artists]
    return [(a, b) for (a, one), (b, two) in itertools.combinations(boxes, 2) if one.overlaps(two)]


@pytest.fixture
def own_space(monkeypatch) -> SearchSpace:
    """A space with a module and two operations that nobody has published."""
    long = "an_operation_with_quite_a_long_name"
    for name in ("ECA", long):
        monkeypatch.setitem(OPERATIONS, name, OPERATIONS["SE"])
    monkeypatch.setitem(MODULES, "pyramid", MODULES["parallel"])
    return SearchSpace.preset(
        "teach", operations=(*PUBLISHED_OPERATIONS, "ECA", long), modules=("parallel", "fusion", "pyramid")
    )


def test_candidates_of_ones_own_are_drawn_and_told_apart(own_space):
    colours = style.colours_of((*own_space.modules, *own_space.operations))
    assert len({colours[name] for name in own_space.modules}) == 3
    assert len({colours[name] for name in own_space.operations}) == 11
    genotype = Genotype.random(own_space, 1)
    figure = draw.architecture(genotype)
    assert set(marked(figure, "module")) == {f"module:{i}:{m}" for i, m in enumerate(genotype.modules)}
    assert {"P  parallel: a residual block on each branch", "Y  pyramid"} < set(texts(figure))  # no second P
    rng = np.random.default_rng(0)
    alpha = rng.dirichlet(np.ones(3), len(own_space.module_branches))
    relaxed = draw.mixture(alpha, rng.dirichlet(np.ones(11), len(own_space.edge_branch)), own_space)
    for row, (branches, weights) in enumerate(zip(own_space.module_branches, alpha, strict=True)):
        lines = [a for a in relaxed.findobj() if a.get_gid() == f"module:{row}:pyramid"]
        others = [a for a in relaxed.findobj() if a.get_gid() == f"module:{row}:parallel"]
        assert [line.get_linewidth() for line in lines] == pytest.approx([lanes.THICK * weights[2]] * branches)
        assert not {line.get_ydata()[0] for line in lines} & {line.get_ydata()[0] for line in others}
    for each in (figure, relaxed):
        each.draw_without_rendering()
        assert (
            overlapping([t for t in each.findobj(matplotlib.text.Text) if t.get_text() and t.axes.axison is False])
            == []
        )


def test_curves_of_candidates_of_ones_own(own_space):
    log = search_log(own_space)
    epochs = [record for record in log if record["kind"] == "epoch"]
    figure = draw.search_curves(log, own_space)
    lines = marked(figure, "alpha")
    assert len(lines) == 3 * len(own_space.module_branches)
    for row, (column, module) in itertools.product(range(4), enumerate(own_space.modules)):
        expected = [record["alpha"][row][column] for record in epochs]
        assert list(lines[f"alpha:{row}:{module}"].get_ydata()) == expected
    assert len({line.get_color() for line in marked(figure, "beta").values()}) == 11
    figure.draw_without_rendering()
    beta = next(axes for axes in figure.axes if axes.get_title(loc="left").startswith("beta"))
    assert beta.get_legend().get_window_extent().height <= beta.get_window_extent().height + 1
    assert overlapping([axes.get_legend() for axes in figure.axes if axes.get_legend()]) == []
    with pytest.raises(ValueError, match="alpha has 3 modules, 2 are named: pass the search's space"):
        draw.search_curves(log)


def test_a_mixture_refuses_logits_and_other_shapes():
    space = SPACES["few operations"]
    alpha, beta = np.full((2, 2), 0.5), np.full((6, 3), 1 / 3)
    draw.mixture(alpha, beta, space)
    with pytest.raises(ValueError, match=r"alpha_weights: rows must be weights .* softmax"):
        draw.mixture(alpha * 0.1, beta, space)
    with pytest.raises(ValueError, match=r"beta_weights has shape \(6, 2\), the space has \(6, 3\)"):
        draw.mixture(alpha, beta[:, :2], space)


def test_every_text_of_a_network_lies_inside_the_figure():
    for space in SPACES.values():
        figure = draw.architecture(Genotype.random(space, 0))
        figure.draw_without_rendering()
        page = figure.bbox.padded(0.5)
        for text in figure.findobj(matplotlib.text.Text):
            if text.get_text() and text.get_visible() and text.axes.axison is False:
                box = text.get_window_extent()
                assert page.x0 <= box.x0, text.get_text()
                assert box.x1 <= page.x1, text.get_text()
                assert page.y0 <= box.y0, text.get_text()
                assert box.y1 <= page.y1, text.get_text()


# ---------------------------------------------------------------- curves


def search_log(space: SearchSpace, epochs: int = 4, steps: int = 5, warmup: int = 1) -> list[dict]:
    rng = np.random.default_rng(1)
    log = []
    for epoch in range(epochs):
        for step in range(epoch * steps, (epoch + 1) * steps):
            arch = {"arch": 2.0 + step, "arch_gradient": 0.1} if epoch >= warmup else {}
            log.append({"kind": "step", "step": step, "train": 1.0 + step, "external": 0.5, **arch})
        log.append({
            "kind": "epoch", "step": step, "epoch": epoch,
            "alpha": rng.dirichlet(np.ones(len(space.modules)), len(space.module_branches)).tolist(),
            "beta": rng.dirichlet(np.ones(len(space.operations)), len(space.edge_branch)).tolist(),
            "alpha_entropy": 0.9 - 0.1 * epoch, "beta_entropy": 0.8, "skip_share": 0.1, "skip_edges": 0.0,
            "expected_cost": 0.4, "genotype": "0" * 12, "eigenvalue": 0.5 if epoch == 2 else None,
        })  # fmt: skip
    return log


def test_search_curves_hold_the_log_on_one_time_axis():
    space = SPACES["few operations"]
    log = search_log(space)
    epochs = [record for record in log if record["kind"] == "epoch"]
    figure = draw.search_curves(log, space)
    assert len(figure.axes) == 5
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    raw = marked(figure, "raw")
    assert list(raw["raw:train"].get_ydata()) == [1.0 + step for step in range(20)]
    assert list(raw["raw:arch"].get_xdata()) == list(range(6, 21))
    alpha = marked(figure, "alpha")
    assert len(alpha) == len(space.module_branches)
    for row in range(len(alpha)):
        assert list(alpha[f"alpha:{row}"].get_ydata()) == [record["alpha"][row][0] for record in epochs]
        assert list(alpha[f"alpha:{row}"].get_xdata()) == [5, 10, 15, 20]
    for column, name in enumerate(space.operations):
        expected = [np.mean([row[column] for row in record["beta"]]) for record in epochs]
        assert np.allclose(marked(figure, "beta")[f"beta:{name}"].get_ydata(), expected)
    entropy = next(line for line in figure.axes[3].lines if line.get_label() == "alpha entropy")
    assert np.allclose(entropy.get_ydata(), [0.9, 0.8, 0.7, 0.6])
    assert list(figure.axes[4].lines[0].get_xydata()[0]) == [15, 0.5]
    dotted = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert dotted == [5]  # the warm-up ends with step 5


def test_the_running_mean_of_a_constant_loss_is_that_constant():
    log = search_log(SPACES["no attention"], epochs=10, steps=20)
    for record in log:
        if record["kind"] == "step":
            record["train"] = 0.25
    figure = draw.search_curves(log)
    assert len(figure.axes) == 4  # without edges there is no panel for beta
    smooth = next(line for line in figure.axes[0].lines if line.get_label() == "weight step")
    assert np.allclose(smooth.get_ydata(), 0.25)


def test_curves_of_one_panel_are_told_apart_in_grey():
    """Lines of one panel differ in their dash, or by more than a tenth of the way from black to white."""
    space = SearchSpace((4, 8, 12, 16, 20), 1)  # four cells, every operation
    for axes in draw.search_curves(search_log(space), space).axes:
        lines = [line for line in axes.lines if line.get_linewidth() > 1]  # no faint ones, no marks
        looks = {(line.get_linestyle(), line.get_color()) for line in lines}
        for (dash, colour), (other_dash, other_colour) in itertools.combinations(looks, 2):
            assert dash != other_dash or abs(luminance(colour) - luminance(other_colour)) > 0.1, axes.get_title()


def test_curves_say_what_is_missing():
    with pytest.raises(ValueError, match="0 steps and 0 epochs"):
        draw.search_curves([])
    with pytest.raises(ValueError, match="3 operations, 9 are named: pass the search's space"):
        draw.search_curves(search_log(SPACES["few operations"]))


def test_training_curves_hold_loss_and_validation():
    log = [{"kind": "step", "step": s, "train": 0.5} for s in range(6)]
    log += [{"kind": "epoch", "step": s, "epoch": i, "val_psnr_rgb": 20.0 + v, "best_psnr": 21.0} for i, (s, v) in
            enumerate([(2, 1), (5, 0)])]  # fmt: skip
    figure = draw.training_curves(log)
    assert [list(line.get_ydata()) for line in figure.axes[1].lines] == [[21, 20], [21, 21]]
    assert list(figure.axes[1].lines[0].get_xdata()) == [3, 6]


# ---------------------------------------------------------------- photographs


@pytest.fixture
def pictures() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rainy, derained, clean: noise everywhere, and one bright square of rain at rows 60-95, columns 100-135."""
    rng = np.random.default_rng(2)
    clean = rng.integers(60, 120, (120, 160, 3), dtype=np.uint8)
    rainy = clean + rng.integers(0, 20, clean.shape, dtype=np.uint8)
    rainy[60:95, 100:135] += 100
    return rainy, clean + np.uint8(4), clean


def test_a_comparison_shows_the_pictures_their_scores_and_the_residuals(pictures):
    rainy, derained, clean = pictures
    figure = draw.comparison(rainy, derained, clean)
    shown = [axes.images[0].get_array() for axes in figure.axes[:9]]
    for given, drawn in zip(pictures, shown, strict=False):
        assert np.allclose(drawn, given / 255)
    assert np.allclose(shown[6], np.abs(rainy / 255 - clean / 255).mean(2))
    assert np.allclose(shown[7], 4 / 255)
    assert np.allclose(shown[8], np.abs(rainy / 255 - derained / 255).mean(2))
    assert len({axes.images[0].norm.vmax for axes in figure.axes[6:9]}) == 1
    expected = peak_signal_noise_ratio(clean, rainy, data_range=255)
    titles = [axes.get_title(loc="left") for axes in figure.axes[:3]]
    assert f"PSNR {expected:.2f} dB" in titles[0]
    assert "(RGB)" in titles[0]
    assert titles[2] == "clean"
    assert "(Y)" in draw.comparison(*pictures, convention="y").axes[1].get_title(loc="left")


def test_the_zoom_finds_the_strongest_rain_or_is_given(pictures):
    figure = draw.comparison(*pictures)
    frame = figure.axes[0].patches[0]
    left, top = frame.get_x() + 0.5, frame.get_y() + 0.5
    assert 60 <= top <= 63
    assert 100 <= left <= 103
    assert (frame.get_width(), frame.get_height()) == (32, 32)
    zoom = draw.comparison(*pictures, crop=(5, 7, 20, 30)).axes[4].images[0].get_array()
    assert np.allclose(zoom, pictures[1][5:25, 7:37] / 255)


def test_a_comparison_takes_tensors_and_tiny_pictures(pictures):
    tensors = [torch.from_numpy(p).movedim(-1, 0) / 255 for p in pictures]
    arrays, drawn = draw.comparison(*pictures), draw.comparison(*tensors)
    assert np.allclose(arrays.axes[7].images[0].get_array(), drawn.axes[7].images[0].get_array(), atol=1e-6)
    tiny = draw.comparison(*(p[:7, :5] for p in pictures))
    assert "SSIM" not in tiny.axes[0].get_title(loc="left")
    assert "dB" in tiny.axes[0].get_title(loc="left")


def test_a_scene_shows_each_rain_with_its_streaks_and_angle():
    clean = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    drawn = rain_scene(clean, ("light", 1.5, "heavy"), seed=1)
    figure = draw.scene(drawn)
    assert len(figure.axes) == 8
    for version in range(3):
        above, below = figure.axes[1 + version], figure.axes[5 + version]
        assert np.array_equal(above.images[0].get_array(), drawn.rainy[version])
        assert np.array_equal(below.images[0].get_array(), drawn.streaks[version])
        assert f"{drawn.parameters[version].angle:+.0f}°" in below.get_title(loc="left")
    titles = [axes.get_title(loc="left") for axes in figure.axes[:4]]
    assert [title.split("\n")[0] for title in titles] == ["clean", "light", "level 1.5", "heavy"]
    angles = {f"angle:{a:.3f}" for a in (drawn.wind, *(p.angle for p in drawn.parameters))}
    assert set(marked(figure, "angle")) == angles


@pytest.mark.parametrize(("change", "message"), [
    (lambda r, d, c: (r, d[:-1], c), "pictures of different sizes"),
    (lambda r, d, c: (r, d, c[..., 0]), r"array \(H, W, 3\) or a tensor"),
    (lambda r, d, c: (r, d.astype(float), c), "divide by 255"),
    (lambda r, d, c: (r, d / np.nan, c), "finite floats"),
    (lambda r, d, c: (r, d, c, (100, 0, 40, 40)), "leaves the picture of 120 x 160"),
])  # fmt: skip
def test_bad_pictures_are_named(pictures, change, message):
    with pytest.raises(ValueError, match=message):
        draw.comparison(*change(*pictures))


# ---------------------------------------------------------------- files and state


def test_files_are_deterministic_complete_and_of_the_format_asked(tmp_path):
    genotype = Genotype.random(SPACES["teach"], 0)
    for run in ("a", "b"):
        paths = draw.save(draw.architecture(genotype), tmp_path / run / "genotype.png", also=("svg", "pdf"))
        assert [path.suffix for path in paths] == [".png", ".svg", ".pdf"]
    for suffix in ("png", "svg", "pdf"):
        first, second = ((tmp_path / run / f"genotype.{suffix}").read_bytes() for run in ("a", "b"))
        assert first == second
    with Image.open(tmp_path / "a" / "genotype.png") as image:
        image.load()
        assert not image.info.keys() & {"Software", "Creation Time"}
    assert "edge:0:" in (tmp_path / "a" / "genotype.svg").read_text()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [f"genotype.{s}" for s in ("pdf", "png", "svg")]


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    figure = draw.architecture(Genotype.random(SPACES["no attention"], 0))
    monkeypatch.setattr(figure, "savefig", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        draw.save(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match=r"cannot save a figure as 'figure.jpg': use .png, .svg, .pdf"):
        draw.save(figure, tmp_path / "figure.jpg")


def test_drawing_leaves_matplotlibs_settings_alone_and_never_imports_pyplot():
    program = (
        "import sys, matplotlib\n"
        "def state(): return {k: v for k, v in matplotlib.rcParams.copy().items() if k != 'backend'}\n"
        "before = state()\n"
        "from manas_lite import draw; from manas_lite.networks.genotype import Genotype\n"
        "from manas_lite.networks.space import SearchSpace\n"
        "figure = draw.architecture(Genotype.random(SearchSpace.preset('smoke'), 0))\n"
        "assert figure._repr_png_().startswith(b'\\x89PNG')\n"
        "assert state() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    root = Path(draw.__file__).parents[2]
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=root, check=True)


def test_colours_are_distinct_also_in_grey_where_only_two_meet():
    assert len({colour for colour, _ in style.OPERATION_LOOKS.values()}) == len(style.OPERATION_LOOKS)
    assert abs(luminance(style.MODULE_COLOURS["parallel"]) - luminance(style.MODULE_COLOURS["fusion"])) > 0.25
