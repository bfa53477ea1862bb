"""Boxes, suppression, average precision and consistency: on cases small enough to do by hand."""

import numpy as np
import pytest
import torch

from manas_course.downstream.boxes import CATEGORIES, Boxes, bundled_boxes, iou, open_boxes
from manas_course.downstream.detection import (
    CocoSsd,
    TorchDetector,
    decode,
    default_detector_file,
    find_detector,
    suppress,
)
from manas_course.downstream.overlays import draw_boxes
from manas_course.downstream.scoring import AveragePrecision, Consistency, consistency, interval, resamples
from manas_lite.photos.images import write_image

PERSON, CAR = 1, 3


def boxes(*rows):
    """(left, top, right, bottom, category, score) each."""
    table = np.array(rows, float).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4], table[:, 5])


def test_categories_are_cocos():
    assert len(CATEGORIES) == 80
    gaps = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    assert set(CATEGORIES) == set(range(1, 91)) - gaps
    assert [CATEGORIES[k] for k in (1, 13, 27, 44, 62, 90)] == [
        "person", "stop sign", "backpack", "bottle", "chair", "toothbrush"
    ]  # fmt: skip


def test_iou_by_hand():
    one = np.array([[0, 0, 10, 10]])
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [10, 0, 20, 10], [2, 2, 4, 4], [3, 3, 3, 3]])
    assert iou(one, others)[0] == pytest.approx([1, 50 / 150, 0, 0, 4 / 100, 0])
    assert iou(np.zeros((0, 4)), others).shape == (0, 6)


def test_boxes_refuse_what_is_none():
    with pytest.raises(ValueError, match="one of each"):
        Boxes(np.zeros((2, 4)), np.ones(1), np.ones(2))
    with pytest.raises(ValueError, match="before it begins"):
        boxes((5, 0, 4, 2, PERSON, 1))


def scored(*columns):
    """Scores (A, 90) from one dict {category: score} an anchor."""
    table = np.zeros((len(columns), 90))
    for row, column in zip(table, columns, strict=True):
        for number, score in column.items():
            row[number - 1] = score
    return table


def test_suppression_keeps_the_surest_of_a_category():
    corners = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 5], [50, 50, 60, 60]], float)
    table = scored({PERSON: 0.6}, {PERSON: 0.9, CAR: 0.3}, {PERSON: 0.8}, {PERSON: 0.2, CAR: 0.005})
    found = suppress(table, corners, overlap=0.6)
    # The first overlaps the second by 0.9: gone. The third does by 5/9: it stays. Cars are another matter.
    assert list(zip(found.labels, found.scores, strict=True)) == [
        (PERSON, 0.9), (PERSON, 0.8), (CAR, 0.3), (PERSON, 0.2)
    ]  # fmt: skip
    np.testing.assert_array_equal(found.corners[0], corners[1])
    assert len(suppress(table, corners, overlap=0.6, most=2)) == 2
    assert len(suppress(table, corners, overlap=0.5)) == 3


def test_decoding_swaps_axes_and_stays_within_the_picture():
    scores, corners = decode(np.zeros((1, 1, 90)), np.array([0.1, -0.2, 0.5, 1.3]).reshape(1, 1, 1, 4), 100, 200)
    assert scores.shape == (1, 90)
    np.testing.assert_allclose(corners, [[0, 10, 200, 50]])


class TestAveragePrecision:
    TRUTH = (boxes((0, 0, 10, 10, PERSON, 1), (20, 0, 30, 10, PERSON, 1)), boxes((0, 0, 10, 10, PERSON, 1)))

    def test_perfect_and_nothing(self):
        assert AveragePrecision(self.TRUTH, self.TRUTH).ap() == pytest.approx({"ap50": 1, "ap": 1})
        assert AveragePrecision(self.TRUTH, (boxes(), boxes())).ap() == pytest.approx({"ap50": 0, "ap": 0})

    def test_by_hand(self):
        """Sorted by score: hit, miss, hit of 3 objects. Precision at recall to 1/3 is 1, to 2/3 is 2/3, then 0; over
        COCO's 101 recalls 0, 0.01 ... 1: 34 of 1 and 33 of 2/3. The second hit has IoU 0.8: lost from 0.85 on."""
        found = (
            boxes((0, 0, 10, 10, PERSON, 0.9), (70, 0, 80, 10, PERSON, 0.8)),
            boxes((0, 0, 10, 8, PERSON, 0.7)),
        )
        precision = AveragePrecision(self.TRUTH, found)
        both, one = (34 + 33 * 2 / 3) / 101, 34 / 101
        assert precision.ap()["ap50"] == pytest.approx(both)
        assert precision.ap()["ap"] == pytest.approx((7 * both + 3 * one) / 10)
        # Resampled: the first picture twice has one of two objects found, the second twice all.
        assert precision.ap(np.array([1, 1]))["ap50"] == pytest.approx(1)
        assert precision.ap(np.array([0, 0]))["ap50"] == pytest.approx(51 / 101)
        assert precision.ap()["ap50"] == pytest.approx(both)  # resampling left nothing behind

    def test_a_wrong_category_is_a_miss_and_absent_ones_do_not_count(self):
        found = (boxes((0, 0, 10, 10, CAR, 0.9), (20, 0, 30, 10, PERSON, 0.9)), boxes((0, 0, 10, 10, PERSON, 0.8)))
        assert AveragePrecision(self.TRUTH, found).ap()["ap50"] == pytest.approx(67 / 101)

    def test_agrees_with_torchmetrics(self):
        """torchmetrics' own wrapper around the same evaluation, on random boxes."""
        pytest.importorskip("torchvision", reason="torchmetrics' mean average precision needs torchvision")
        from torchmetrics.detection import MeanAveragePrecision

        rng = np.random.default_rng(0)
        truth, found = [], []
        for _ in range(8):
            corners = rng.uniform(0, 50, (6, 2))
            corners = np.concatenate([corners, corners + rng.uniform(5, 40, (6, 2))], 1)
            labels = rng.choice([PERSON, CAR], 6)
            truth.append(Boxes(corners, labels, np.ones(6)))
            found.append(Boxes(corners + rng.uniform(-2, 2, (6, 4)), labels, rng.uniform(0, 1, 6)))
        metric = MeanAveragePrecision(max_detection_thresholds=[1, 10, 100])
        as_tensors = lambda b: {  # noqa: E731
            "boxes": torch.tensor(b.corners), "labels": torch.tensor(b.labels), "scores": torch.tensor(b.scores)
        }  # fmt: skip
        metric.update([as_tensors(b) for b in found], [as_tensors(b) for b in truth])
        expected = metric.compute()
        ours = AveragePrecision(truth, found).ap()
        assert ours["ap50"] == pytest.approx(float(expected["map_50"]), abs=1e-6)
        assert ours["ap"] == pytest.approx(float(expected["map"]), abs=1e-6)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="2 pictures with true boxes, 1 with detections"):
            AveragePrecision(self.TRUTH, (boxes(),))
        with pytest.raises(ValueError, match="no picture has a true box"):
            AveragePrecision((boxes(),), (boxes(),))


class TestConsistency:
    CLEAN = boxes(
        (0, 0, 10, 10, PERSON, 0.9), (20, 0, 30, 10, CAR, 0.8), (40, 0, 50, 10, CAR, 0.6), (0, 0, 9, 9, CAR, 0.4)
    )

    def test_nothing_changed(self):
        kept = consistency(self.CLEAN, self.CLEAN)
        assert (kept.clean, kept.found, kept.matched) == (3, 3, 3)  # below 0.5 nothing counts
        assert kept.drop == pytest.approx((0, 0, 0))

    def test_by_hand(self):
        found = boxes(
            (0, 0, 10, 8, PERSON, 0.7),  # found again, IoU 0.8, 0.2 less sure
            (0, 0, 10, 9, PERSON, 0.6),  # the same person twice: one match only
            (20, 0, 30, 10, PERSON, 0.9),  # a car taken for a person
            (40, 0, 50, 10, CAR, 0.2),  # too unsure to count; its score still tells the drop
        )
        kept = consistency(self.CLEAN, found)
        assert (kept.clean, kept.found, kept.matched) == (3, 3, 1)
        assert kept.drop == pytest.approx((0.2, 0.8, 0.4))
        both = [kept, consistency(self.CLEAN, self.CLEAN)]
        assert Consistency.recall(both) == pytest.approx(4 / 6)
        assert Consistency.precision(both) == pytest.approx(4 / 6)
        assert Consistency.confidence_drop(both) == pytest.approx(1.4 / 6)

    def test_the_surest_takes_the_place(self):
        """Two persons close together: each detection goes to the one it overlaps most that is still free."""
        clean = boxes((0, 0, 10, 10, PERSON, 0.9), (3, 0, 13, 10, PERSON, 0.9))
        found = boxes((1, 0, 11, 10, PERSON, 0.6), (0, 0, 10, 10, PERSON, 0.9))
        assert consistency(clean, found).matched == 2

    def test_empty_pictures(self):
        kept = consistency(boxes(), self.CLEAN)
        assert (kept.clean, kept.found, kept.matched, kept.drop) == (0, 3, 0, ())
        assert np.isnan(Consistency.recall([kept]))
        assert Consistency.precision([kept]) == 0
        assert consistency(self.CLEAN, boxes()).drop == pytest.approx((0.9, 0.8, 0.6))
        assert np.isnan(Consistency.precision([consistency(boxes(), boxes())]))


def test_interval_of_a_mean_is_the_textbooks():
    """1.96 standard errors about the mean, for many values that are nearly normal."""
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = interval([values[row].mean() for row in resamples(400, 2000)])
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert np.array_equal(resamples(5, 3, seed=1), resamples(5, 3, seed=1))
    assert np.isnan(interval([float("nan")])).all()
    assert interval([1.0, float("nan"), 1.0]) == (1.0, 1.0)
    with pytest.raises(ValueError, match="at least one picture"):
        resamples(0, 3)


def test_bundled_boxes_are_cocos(real_data):
    """Boxes and pictures bundled here against the source, whose masks and boxes come from COCO."""
    ours, theirs = bundled_boxes(), open_boxes(real_data / "coco_permissive")
    assert len(ours) == len(theirs) == 26
    by_name = {photo.name: photo for photo in ours}
    for photo in theirs:
        mine = by_name[f"coco_{photo.name}"]
        np.testing.assert_array_equal(mine.relative, photo.relative)
        np.testing.assert_allclose(mine.truth().corners, photo.truth().corners)
    assert sum(photo.part == "test" for photo in ours) == 6


def test_bundled_bus_is_a_bus():
    (bus,) = (photo for photo in bundled_boxes() if photo.name == "coco_000000000471")
    truth = bus.truth()
    assert "bus" in [CATEGORIES[label] for label in truth.labels]
    height, width = bus.picture.size()
    assert (truth.corners >= -0.5).all()
    assert (truth.corners <= np.array([width, height, width, height]) + 0.5).all()


def test_a_folder_of_boxes(tmp_path):
    with pytest.raises(FileNotFoundError, match="images/ and labels/"):
        open_boxes(tmp_path)
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    with pytest.raises(ValueError, match="holds no"):
        open_boxes(tmp_path)
    write_image(tmp_path / "images" / "a.png", np.zeros((50, 100, 3), np.uint8))
    write_image(tmp_path / "images" / "b.png", np.zeros((50, 100, 3), np.uint8))
    labels = tmp_path / "labels" / "a.txt"
    labels.write_text("11 0.5 0.5 0.2 0.4\n\n")
    a, b = open_boxes(tmp_path)
    np.testing.assert_allclose(a.truth().corners, [[40, 15, 60, 35]])
    assert CATEGORIES[int(a.truth().labels[0])] == "stop sign"  # YOLO's 11 is COCO's 13
    assert len(b.truth()) == 0
    for line in ("80 0.5 0.5 0.1 0.1", "1 0.5 0.5 0.1", "1 0.5 0.5 0.1 1.5", "a 0.5 0.5 0.1 0.1", "1.5 0 0 0 0"):
        labels.write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
        with pytest.raises(ValueError, match=r"a\.txt, line 2"):
            open_boxes(tmp_path)


def test_drawn_boxes_are_where_they_belong():
    picture = np.full((100, 120, 3), 128, np.uint8)
    drawn = draw_boxes(picture, boxes((30, 40, 90, 80, PERSON, 0.8), (0, 0, 20, 20, CAR, 0.3)))
    changed = (drawn != picture).any(2)
    assert changed[40:81, 30].all()
    assert changed[80, 30:91].all()
    assert not changed[45:75, 35:85].any()
    assert not changed[:15, :15].any()  # below the score
    assert (picture == 128).all()


class OneOf(torch.nn.Module):
    """A module of torchvision's form: a list of pictures in, a list of dicts out."""

    def forward(self, pictures):
        (picture,) = pictures
        self.seen = tuple(picture.shape), float(picture.max())
        found = [[0.0, 0, 5, 5], [1, 1, 9, 9], [0, 0, 2, 2]]
        return [
            {
                "boxes": torch.tensor(found),
                "labels": torch.tensor([1, 3, 1]),
                "scores": torch.tensor([0.2, 0.9, 0.001]),
            }
        ]


def test_a_torchvision_detector():
    module = OneOf().train()
    found = TorchDetector(module)(np.full((8, 12, 3), 255, np.uint8))
    assert not module.training
    assert module.seen == ((3, 8, 12), 1.0)
    assert found.labels.tolist() == [3, 1]
    assert found.scores == pytest.approx([0.9, 0.2])


def test_a_missing_or_foreign_detector_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"coco_ssd/make\.py"):
        CocoSsd(tmp_path / "none.onnx")
    assert find_detector(tmp_path / "none.onnx") is None
    pytest.importorskip("onnxruntime", reason="needs the extra: pip install 'manas_lite[downstream]'")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match="no ONNX model"):
        CocoSsd(tmp_path / "bad.onnx")


@pytest.mark.slow
def test_the_real_detector_finds_the_bus():
    if not default_detector_file().is_file():
        pytest.skip(f"no detector at {default_detector_file()}: python data_scripts/coco_ssd/make.py makes it, once")
    detector = CocoSsd()
    (bus,) = (photo for photo in bundled_boxes() if photo.name == "coco_000000000471")
    found = detector(bus.picture.read()).above(0.9)
    truth = bus.truth()
    assert [CATEGORIES[label] for label in found.labels] == ["bus"]
    assert iou(found.corners, truth.corners[truth.labels == found.labels[0]]).max() > 0.8
    photos = bundled_boxes()
    everything = AveragePrecision([p.truth() for p in photos], [detector(p.picture.read()) for p in photos]).ap()
    assert everything["ap50"] > 0.5  # what it reached when it was converted: 0.576
