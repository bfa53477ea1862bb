"""Masks read strictly, scores held to torchmetrics and to hand counts, a segmenter that learns what can be learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from manas_course.downstream.masks import CAMVID, COARSE, IGNORE, MaskedPhoto, MaskedSet, bundled_masks, open_camvid
from manas_course.downstream.overlays import draw_classes
from manas_course.downstream.segmentation import (
    SegmenterSettings,
    confusion,
    load_segmenter,
    save_segmenter,
    scores,
    segment,
    train_segmenter,
)
from manas_lite.compute.runtime import ComputeSettings
from manas_lite.data import Picture
from manas_lite.photos.images import ImageError, write_image

COMPUTE = ComputeSettings(device="cpu", threads=1)
TINY = SegmenterSettings(widths=(8, 8), steps=60, batch=4, side=32)


def frame(seed: int, side: int = 48):
    """A picture whose class is its colour: blue above, grey below, a red square somewhere; and its mask."""
    rng = np.random.default_rng(seed)
    picture = np.full((side, side, 3), (110, 110, 110), np.uint8)
    mask = np.full((side, side), 3, np.uint8)
    horizon = int(rng.integers(side // 3, 2 * side // 3))
    picture[:horizon], mask[:horizon] = (60, 120, 230), 0
    top, left = rng.integers(0, side - 16, 2)
    picture[top : top + 16, left : left + 16], mask[top : top + 16, left : left + 16] = (220, 40, 40), 8
    noisy = picture + rng.normal(0, 8, picture.shape)
    return noisy.clip(0, 255).astype(np.uint8), mask


def camvid(folder, parts=(("train", 8),)):
    for part, count in parts:
        for i in range(count):
            picture, mask = frame(i + 100 * (part == "test"))
            for name, array in ((part, picture), (f"{part}annot", mask)):
                (folder / name).mkdir(parents=True, exist_ok=True)
                write_image(folder / name / f"{part}{i}.png", array)
    return folder


def test_confusion_and_scores_by_hand():
    truth = np.array([[0, 0, 1, 1], [0, 2, IGNORE, IGNORE]], np.uint8)
    predicted = np.array([[0, 1, 1, 1], [0, 0, 0, 2]], np.uint8)
    matrix = confusion(predicted, truth, 4)
    np.testing.assert_array_equal(matrix, [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    found = scores(matrix, ("a", "b", "c", "d"))
    assert found["iou_a"] == pytest.approx(2 / 4)  # hit 2, missed 1, wrong 1
    assert found["iou_b"] == pytest.approx(2 / 3)
    assert found["iou_c"] == 0
    assert np.isnan(found["iou_d"])  # nowhere: counts nowhere
    assert found["miou"] == pytest.approx((2 / 4 + 2 / 3 + 0) / 3)
    assert found["accuracy"] == pytest.approx(4 / 6)


def test_scores_are_those_of_torchmetrics():
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

    rng = np.random.default_rng(0)
    truths = [rng.choice([0, 1, 2, 4, IGNORE], (20, 30)).astype(np.uint8) for _ in range(3)]
    found = [rng.integers(0, 5, (20, 30)).astype(np.uint8) for _ in range(3)]
    ours = scores(sum(confusion(p, t, 5) for p, t in zip(found, truths, strict=True)), "abcde")
    prediction, truth = (torch.from_numpy(np.stack(x).astype(np.int64)) for x in (found, truths))
    options = {"num_classes": 5, "ignore_index": IGNORE}
    each = multiclass_jaccard_index(prediction, truth, average=None, **options)
    assert [ours[f"iou_{name}"] for name in "abcde"] == pytest.approx(each.tolist())
    assert ours["miou"] == pytest.approx(float(multiclass_jaccard_index(prediction, truth, **options)))
    assert ours["accuracy"] == pytest.approx(float(multiclass_accuracy(prediction, truth, average="micro", **options)))


def test_camvid_layout(tmp_path):
    data = open_camvid(camvid(tmp_path / "alone"))
    assert (len(data.train), len(data.test)) == (6, 2)
    assert "nothing more" in data.note
    assert not {p.name for p in data.train} & {p.name for p in data.test}
    assert data.classes == CAMVID
    both = open_camvid(camvid(tmp_path / "both", (("train", 4), ("test", 2))))
    assert [p.name for p in both.test] == ["test0", "test1"]
    assert len(both.train) == 4
    assert both.train[0].truth().max() == 8


def test_bad_masks_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="CamVid's layout"):
        open_camvid(tmp_path)
    folder = camvid(tmp_path / "a")
    (folder / "trainannot" / "train3.png").unlink()
    with pytest.raises(FileNotFoundError, match="no mask for train3"):
        open_camvid(folder)
    with pytest.raises(ValueError, match="too few"):
        open_camvid(camvid(tmp_path / "b", (("train", 3),)))
    photo = open_camvid(camvid(tmp_path / "c")).train[0]
    write_image(photo.mask, np.zeros((10, 10), np.uint8))
    with pytest.raises(ImageError, match="is 10x10, its picture"):
        photo.truth()
    write_image(photo.mask, np.zeros((48, 48, 3), np.uint8))
    with pytest.raises(ImageError, match="one class number a pixel"):
        photo.truth()
    photo.mask.write_bytes(b"no picture")
    with pytest.raises(ImageError, match="is no image that this kit reads"):
        photo.truth()


def test_numbers_beyond_the_classes_are_ignored(tmp_path):
    write_image(tmp_path / "mask.png", np.array([[0, 10, 11, 200]], np.uint8))
    write_image(tmp_path / "picture.png", np.zeros((1, 4, 3), np.uint8))
    photo = MaskedPhoto("a", Picture(tmp_path / "picture.png"), tmp_path / "mask.png", 11)
    assert photo.truth().tolist() == [[0, 10, IGNORE, IGNORE]]


@pytest.mark.parametrize(
    ("palette", "classes"),
    [
        ([3, 3, 3, 0, 0, 0, 7, 7, 7], [3, 0, 7]),  # grey levels, packed by an optimiser
        ([0, 0, 0, 128, 0, 0, 0, 128, 0], [0, 1, 2]),  # colours for the eye, as in Pascal VOC
    ],
)
def test_palettes(tmp_path, palette, classes):
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette(palette)
    image.save(tmp_path / "mask.png")
    write_image(tmp_path / "picture.png", np.zeros((1, 3, 3), np.uint8))
    photo = MaskedPhoto("a", Picture(tmp_path / "picture.png"), tmp_path / "mask.png", 11)
    assert photo.truth().tolist() == [classes]


def test_real_camvid_frames(real_data):
    """Roads lie below skies: classes come out of the packed palettes right."""
    data = open_camvid(real_data / "CamVid_sample")
    rows = np.arange(360)[:, None] * np.ones((1, 480))
    for photo in (*data.train, *data.test):
        truth = photo.truth()
        assert truth.shape == (360, 480)
        sky, road = (rows[truth == CAMVID.index(name)] for name in ("sky", "road"))
        assert sky.size > 1000
        assert road.size > 10_000
        assert sky.mean() < 130 < 200 < road.mean()


def test_bundled_masks_fit_their_pictures():
    data = bundled_masks()
    assert (len(data.train), len(data.test)) == (20, 6)
    counts = sum(np.bincount(photo.truth().ravel(), minlength=256) for photo in (*data.train, *data.test))
    assert (counts[: len(COARSE)] > 0).all()
    assert counts[len(COARSE) : IGNORE].sum() == 0
    (snow,) = (photo for photo in data.train if photo.name == "coco_000000000508")  # a snowy hill under clouds
    assert COARSE[snow.truth()[10, 300]] == "sky"
    assert COARSE[snow.truth()[-10, 300]] == "ground"


def test_a_segmenter_learns_colours_and_is_the_same_again(tmp_path):
    data = open_camvid(camvid(tmp_path))
    net = train_segmenter(data, TINY, compute=COMPUTE, progress=False)
    matrix = sum(confusion(segment(net, p.picture.read()), p.truth(), 11) for p in data.test)
    found = scores(matrix, data.classes)
    assert found["accuracy"] > 0.9
    assert min(found[f"iou_{name}"] for name in ("sky", "road", "car")) > 0.6
    again = train_segmenter(data, TINY, compute=COMPUTE, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))
    other = train_segmenter(data, replace(TINY, seed=1, steps=1), compute=COMPUTE, progress=False)
    assert not torch.equal(other.head.weight, net.head.weight)

    save_segmenter(tmp_path / "net.safetensors", net, TINY, data)
    loaded = load_segmenter(tmp_path / "net.safetensors", data)
    picture = data.test[0].picture.read()
    np.testing.assert_array_equal(segment(loaded, picture), segment(net, picture))
    swapped = MaskedSet(data.name, data.classes, data.test, data.train)
    with pytest.raises(ValueError, match="was trained on test pictures"):
        load_segmenter(tmp_path / "net.safetensors", swapped)
    with pytest.raises(ValueError, match="knows the classes"):
        load_segmenter(tmp_path / "net.safetensors", bundled_masks())


@pytest.mark.parametrize("size", [(1, 1), (7, 33), (48, 30)])
def test_any_size_is_segmented(tmp_path, size):
    from manas_course.downstream.segmentation import Segmenter

    assert segment(Segmenter(CAMVID, (4, 4, 4)).eval(), np.zeros((*size, 3), np.uint8)).shape == size


def test_the_shipped_segmenter_fits_the_bundled_masks():
    from manas_course.downstream.segmentation import BUNDLED_SEGMENTER

    data = bundled_masks()
    net = load_segmenter(BUNDLED_SEGMENTER, data)  # trained on none of the test pictures
    (bus,) = (photo for photo in data.test if photo.name == "coco_000000000471")
    matrix = confusion(segment(net, bus.picture.read()), bus.truth(), len(COARSE))
    assert scores(matrix, COARSE)["accuracy"] > 2 / len(COARSE)  # twice chance


def test_drawn_classes():
    picture = np.full((60, 60, 3), 128, np.uint8)
    classes = np.full((60, 60), IGNORE, np.uint8)
    classes[:, 40:] = 1
    drawn = draw_classes(picture, classes, ("a", "b"))
    assert (drawn[30:, :30] == 128).all()
    assert (drawn[30:, 45:] != 128).any()
    assert len(np.unique(drawn[40:, 45:].reshape(-1, 3), axis=0)) == 1
