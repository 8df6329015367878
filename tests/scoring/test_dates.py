import numpy as np
import pytest

from data.errors import InputError
from scoring.dates import EQUAL, Blend, KnownBefore, Recent, SameSeason, folds

DAY = np.timedelta64(1, "D").astype("timedelta64[ns]")
TIMES = np.datetime64("2006-01-01", "ns") + np.arange(800) * DAY


def test_a_truth_that_comes_late_fits_late():
    rule = KnownBefore(5, latency=2 * DAY)
    assert rule.fitting(TIMES, 3 * DAY, 10).tolist() == [0, 1, 2, 3, 4, 5]
    assert KnownBefore(5).fitting(TIMES, 3 * DAY, 10).size == 8


def test_recent_weights_halve_with_the_half_life():
    weights = Recent(10 * DAY).weights(TIMES, TIMES[100])
    assert weights[100] == 1
    assert weights[90] == pytest.approx(0.5)
    assert weights[80] == pytest.approx(0.25)


def test_same_season_knows_no_year():
    weights = SameSeason(10 * DAY).weights(TIMES, TIMES[400])
    assert weights[400] == 1
    assert weights[35] == pytest.approx(1, abs=0.002)  # 365 days before: a quarter of a day off
    assert weights[390] == pytest.approx(np.exp(-0.5))
    assert weights[218] < 1e-10
    assert weights[765] == pytest.approx(1, abs=0.002)


def test_a_blend_is_a_weighted_mean():
    recent, season = Recent(10 * DAY), SameSeason(20 * DAY)
    weights = Blend(((recent, 3.0), (season, 1.0))).weights(TIMES, TIMES[500])
    expected = (3 * recent.weights(TIMES, TIMES[500]) + season.weights(TIMES, TIMES[500])) / 4
    np.testing.assert_allclose(weights, expected)
    assert Blend(((EQUAL, 2.0),)).weights(TIMES, TIMES[0]).tolist() == [1.0] * 800


def test_folds_keep_an_init_time_on_one_side():
    times = np.repeat(TIMES[:11], 3)
    left = []
    for fitting, out in folds(times, 4):
        assert not set(times[fitting]) & set(times[out])
        assert fitting.size + out.size == times.size
        assert (np.diff(out) == 1).all()
        left += out.tolist()
    assert sorted(left) == list(range(33))


def test_more_folds_than_init_times_are_refused():
    with pytest.raises(InputError, match="12 folds need as many init times, found 11"):
        next(folds(np.repeat(TIMES[:11], 3), 12))
