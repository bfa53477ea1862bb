"""The numbers that describe a layer of rain, on layers whose numbers are known."""

import math

import numpy as np
import pytest
from project import script

from manas_lite.rain import Layer, _draw_streaks

rain_statistics = script("rain_statistics")


@pytest.mark.parametrize("angle", [-40, -15, 0, 25])
def test_an_angle_is_found_with_its_sign(angle):
    rain = _draw_streaks(200, 300, (Layer(angle, 20, 2.0, 0.002, 0.5),), np.random.default_rng(0))
    assert rain_statistics.statistics(rain)["angle"] == pytest.approx(angle, abs=3)


def test_longer_and_broader_streaks_measure_so():
    def measured(length, width):
        layer = Layer(10, length, width, 0.0005, 0.5)
        return rain_statistics.statistics(_draw_streaks(200, 300, (layer,), np.random.default_rng(0)))

    thin, long, broad = measured(15, 1.5), measured(40, 1.5), measured(15, 4.0)
    assert long["length"] > 1.7 * thin["length"]
    assert broad["width"] > 1.7 * thin["width"]


def test_share_and_brightness_are_those_of_the_visible_rain():
    rain = np.zeros((20, 20), np.float32)
    rain[:, 5] = 0.5
    rain[:, 9] = 0.01
    found = rain_statistics.statistics(rain)
    assert found["share"] == pytest.approx(1 / 20)
    assert found["brightness"] == pytest.approx(0.5)
    assert found["angle"] == pytest.approx(0, abs=0.1)


def test_a_dry_picture_has_no_angle():
    found = rain_statistics.statistics(np.zeros((8, 8), np.float32))
    assert found["share"] == 0
    assert math.isnan(found["angle"])
