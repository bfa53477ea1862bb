"""The script that makes the bundled segmenter."""

import importlib.util

from manas_course.downstream.masks import bundled_masks
from manas_course.downstream.segmentation import SegmenterSettings, load_segmenter, was_trained_so


def test_a_segmenter_is_made_on_the_bundled_photographs(repository, tmp_path):
    spec = importlib.util.spec_from_file_location("make_segmenter", repository / "data_scripts" / "segmenter.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    settings, data = SegmenterSettings(widths=(4, 4), steps=1, batch=1, side=16), bundled_masks()
    script.make(tmp_path / "net.safetensors", settings)
    assert load_segmenter(tmp_path / "net.safetensors", data).classes == data.classes  # none of its test pictures seen
    assert was_trained_so(tmp_path / "net.safetensors", settings, data)
    assert not was_trained_so(tmp_path / "net.safetensors", SegmenterSettings(), data)
