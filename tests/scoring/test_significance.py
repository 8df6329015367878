"""Tests of tests: closed forms, brute force from the definitions, and how often they are wrong."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import fft, stats

from data.errors import InputError
from data.key import Key
from scoring.cosines import Weights
from scoring.moments import SquaredError, Variance
from scoring.sample import of_difference, of_mean, of_score, of_skill
from scoring.score import RMSE, SPREAD_SKILL, Score
from scoring.significance import EqualWeightedCosine, StationaryBootstrap, false_discovery
from scoring.sums import Sums
from tests.scoring.series import PERSISTENT, PROCESSES, WHITE, dated, series

CASES = [(process, size) for process in PROCESSES | PERSISTENT for size in (20, 60, 200)]
TESTS = (EqualWeightedCosine(), StationaryBootstrap(Key(3), draws=199))


def squared_errors(values: xr.DataArray, key: str = "squared_error", weight: float = 1.0) -> Sums:
    """Sums of one statistic, with equal weights."""
    return Sums({key: weight * values}, {key: xr.full_like(values, weight)})


# Equal-weighted cosines


def test_standard_error_is_that_of_the_lowest_cosines():
    values = series(PROCESSES["AR(1) 0.5"], 50, 3, 1)
    result = EqualWeightedCosine(5).of(of_mean(dated(values)))
    transform = fft.dct(values, norm="ortho", axis=0)[1:6]
    error = np.sqrt((transform**2).mean(axis=0) / 50)
    np.testing.assert_allclose(result.standard_error, error, rtol=1e-12)
    ratio = values.mean(axis=0) / error
    np.testing.assert_allclose(result.p_value, 2 * stats.t.sf(np.abs(ratio), 5), rtol=1e-10)
    half = stats.t.ppf(0.975, 5) * error
    np.testing.assert_allclose(result.upper - result.estimate, half, rtol=1e-10)
    np.testing.assert_allclose(result.estimate - result.lower, half, rtol=1e-10)


def test_all_cosines_make_it_the_t_test_of_independent_values():
    values = series(WHITE, 20, 4, 2) + 0.3
    result = EqualWeightedCosine(cosines=19).of(of_mean(dated(values)), level=0.9)
    expected = stats.ttest_1samp(values, 0.0)
    np.testing.assert_allclose(result.p_value, expected.pvalue, rtol=1e-10)
    interval = expected.confidence_interval(0.9)
    np.testing.assert_allclose(result.lower, interval.low, rtol=1e-10)
    np.testing.assert_allclose(result.upper, interval.high, rtol=1e-10)


def test_it_agrees_with_diebold_and_mariano_where_both_are_students_test():
    scores = pytest.importorskip("scores")
    values = series(WHITE, 30, 2, 3) + 0.2
    theirs = scores.stats.statistical_tests.diebold_mariano(
        xr.DataArray(values.T, {"h": ("cell", [1, 1])}, ("cell", "init_time")),
        "cell", "h", method="HLN",
    )  # fmt: skip
    ours = EqualWeightedCosine(cosines=29).of(of_mean(dated(values)))
    ratio = ours.estimate / ours.standard_error
    np.testing.assert_allclose(ratio, theirs.dm_test_stat, rtol=1e-8)


def test_by_default_cosines_have_the_weights_that_suit_each_series():
    values = series(PERSISTENT["AR(1) 0.7"], 60, 20, 4) + 1.0
    result = EqualWeightedCosine().of(of_mean(dated(values)))
    weights = Weights.adapted(values)
    assert len(np.unique(weights.degrees)) > 2
    squares = fft.dct(values, norm="ortho", axis=0)[1:7] ** 2  # 0.4 * 60^(2/3) = 6.1
    error = np.sqrt((weights.values * squares).sum(axis=0) / 60)
    np.testing.assert_allclose(result.standard_error, error, rtol=1e-12)
    ratio = np.abs(values.mean(axis=0) / error)
    np.testing.assert_allclose(result.p_value, 2 * stats.t.sf(ratio, weights.degrees), rtol=1e-9)
    half = stats.t.ppf(0.975, weights.degrees) * error
    np.testing.assert_allclose(result.upper - result.estimate, half, rtol=1e-9)


def test_a_cell_has_its_result_whatever_is_beside_it():
    values = dated(series(PROCESSES["AR(1) 0.5"], 30, 6, 9))
    for test in TESTS:
        whole = test.of(of_mean(values))
        alone = test.of(of_mean(values.isel(cell=[4])))
        xr.testing.assert_allclose(whole.isel(cell=[4]), alone, rtol=1e-12)


# How often they are wrong


def false_positives(test, sample) -> float:
    return float((test.of(sample).p_value <= 0.05).mean())


def is_3_to_7_in_100(rate: float, number: int) -> bool:
    """But for the sampling error of so many series."""
    return 0.03 - 0.34 / np.sqrt(number) <= rate <= 0.07 + 0.51 / np.sqrt(number)


@pytest.mark.parametrize(("process", "size"), CASES)
def test_false_positives_of_cosines_are_3_to_7_in_100(process, size):
    values = series((PROCESSES | PERSISTENT)[process], size, 20_000, seed=size)
    rate = false_positives(EqualWeightedCosine(), of_mean(dated(values)))
    assert is_3_to_7_in_100(rate, 20_000)


@pytest.mark.parametrize(("process", "size"), [case for case in CASES if case[1] < 200][::2])
def test_false_positives_of_the_bootstrap_are_3_to_7_in_100(process, size):
    values = series((PROCESSES | PERSISTENT)[process], size, 2000, seed=size)
    test = StationaryBootstrap(Key(3), draws=399)
    assert is_3_to_7_in_100(false_positives(test, of_mean(dated(values))), 2000)


def test_paired_differences_of_alike_dates_are_called_3_to_7_in_100():
    """Two forecasts with the same weather and errors of their own, both slow."""
    own = [series(PERSISTENT["AR(1) 0.8"], 40, 10_000, seed) for seed in (31, 32)]
    weather = 3 * series(PERSISTENT["AR(1) 0.8"], 40, 10_000, 33)
    one, two = (dated(weather + each) for each in own)
    assert is_3_to_7_in_100(false_positives(EqualWeightedCosine(), of_mean(one - two)), 10_000)


def test_independent_dates_lose_little_to_what_guards_against_alike_ones():
    values = dated(series(WHITE, 60, 10_000, 34) + 2.8 / np.sqrt(60))
    adapted, published = (
        float((test.of(of_mean(values)).p_value <= 0.05).mean())
        for test in (EqualWeightedCosine(), EqualWeightedCosine(6))
    )
    assert published - 0.02 < adapted <= published + 0.005


def test_false_positives_of_functions_of_means():
    """Differences of RMSE, and skill, of two forecasts that are equally good."""
    errors = [series(PROCESSES["AR(1) 0.5"], 60, 1000, seed) for seed in (10, 11)]
    one, two = (squared_errors(dated(1.0 + 0.5 * np.tanh(each))) for each in errors)
    for test in (EqualWeightedCosine(), StationaryBootstrap(Key(3), draws=399)):
        for sample in (of_difference(RMSE, one, two), of_skill(RMSE, one, two)):
            assert 0.03 <= false_positives(test, sample) <= 0.07, test.name


def test_a_difference_that_is_there_is_found():
    values = dated(series(PROCESSES["AR(1) 0.5"], 120, 200, 12) + 1.0)
    for test in TESTS:
        assert (test.of(of_mean(values)).p_value <= 0.05).mean() > 0.95


# Functions of means


def test_of_a_mean_the_sums_give_what_the_values_give():
    values = dated(series(PROCESSES["AR(1) 0.3"], 25, 4, 13) ** 2).rename("squared_error")
    score = Score("mse", "mean", (SquaredError(),), lambda mean: mean)
    for test in TESTS:
        plain, summed = test.of(of_mean(values)), test.of(of_score(score, squared_errors(values)))
        for name in plain:
            np.testing.assert_allclose(summed[name], plain[name], rtol=1e-9, err_msg=str(name))


def test_error_of_a_root_is_that_of_the_delta_method():
    values = 1.0 + 0.1 * series(PROCESSES["AR(1) 0.3"], 200, 3, 14)
    root = EqualWeightedCosine().of(of_score(RMSE, squared_errors(dated(values))))
    plain = EqualWeightedCosine().of(of_mean(dated(values)))
    np.testing.assert_allclose(root.estimate, np.sqrt(values.mean(axis=0)))
    delta = plain.standard_error / (2 * root.estimate)
    np.testing.assert_allclose(root.standard_error, delta, rtol=0.01)


def test_unequal_weights_are_those_of_a_ratio_of_means():
    rng = np.random.default_rng(15)
    values, weights = dated(rng.random((40, 2))), dated(rng.random((40, 2)) + 0.5)
    sums = Sums({"squared_error": values * weights}, {"squared_error": weights})
    result = EqualWeightedCosine().of(of_score(RMSE, sums))
    mean = (values * weights).sum("init_time") / weights.sum("init_time")
    influence = weights / weights.mean("init_time") * (values - mean) / (2 * np.sqrt(mean))
    expected = EqualWeightedCosine().of(of_mean(influence)).standard_error
    np.testing.assert_allclose(result.estimate, np.sqrt(mean))
    np.testing.assert_allclose(result.standard_error, expected, rtol=0.03)


def test_bootstrap_of_a_score_draws_totals_and_weights():
    rng = np.random.default_rng(16)
    values, weights = dated(rng.random((20, 3))), dated(rng.random((20, 3)) + 0.5)
    sums = Sums({"squared_error": values * weights}, {"squared_error": weights})
    positions = rng.integers(0, 20, (5, 20))
    counts = np.stack([np.bincount(one, minlength=20) for one in positions]).astype(float)
    found = of_score(RMSE, sums).resampled(counts, np.array([2, 0]))
    for draw, one in enumerate(positions):
        total = (values * weights).values[one].sum(axis=0) / weights.values[one].sum(axis=0)
        np.testing.assert_allclose(found[draw], np.sqrt(total)[[2, 0]])


def test_scores_of_several_statistics_have_intervals():
    rng = np.random.default_rng(17)
    variance, error = (dated(rng.chisquare(8, (50, 3)) / 8) for _ in range(2))
    keys = [statistic.key for statistic in SPREAD_SKILL.statistics]
    totals = dict(zip(keys, (variance, error), strict=True))
    sums = Sums(totals, {key: xr.ones_like(error) for key in keys})
    for test in TESTS:
        result = test.of(of_score(SPREAD_SKILL, sums))
        expected = np.sqrt(variance.mean("init_time") / error.mean("init_time"))
        np.testing.assert_allclose(result.estimate, expected)
        assert ((result.lower < 1) & (result.upper > 1)).all()


# Pairs and dates


def test_pairs_share_their_init_times_only():
    values = dated(series(WHITE, 30, 2, 18) ** 2)
    one, two = squared_errors(values[3:]), squared_errors(2 * values[:-4])
    result = EqualWeightedCosine().of(of_difference(RMSE, one, two))
    expected = np.sqrt(values[3:-4].mean("init_time")) * (1 - np.sqrt(2))
    np.testing.assert_allclose(result.estimate, expected)
    assert (result.dates == 23).all()
    skill = EqualWeightedCosine().of(of_skill(RMSE, one, two))
    np.testing.assert_allclose(skill.estimate, 1 - np.sqrt(0.5))


def test_a_date_that_one_has_not_at_a_cell_counts_for_neither_there():
    values = dated(series(WHITE, 30, 2, 19) ** 2)
    weights = xr.ones_like(values)
    weights[25:, 1] = 0.0
    one = Sums({"squared_error": values * weights}, {"squared_error": weights})
    result = EqualWeightedCosine().of(of_difference(RMSE, one, squared_errors(4 * values)))
    assert result.dates.values.tolist() == [30, 25]
    expected = -np.sqrt(values[:25, 1].mean())
    assert result.estimate[1].item() == pytest.approx(float(expected))


def test_missing_values_are_left_out_cell_by_cell():
    values = dated(series(WHITE, 30, 3, 20))
    values[20:, 1] = np.nan
    values[:, 2] = np.nan
    for test in TESTS:
        result = test.of(of_mean(values))
        assert result.dates.values.tolist() == [30, 20, 0]
        alone = test.of(of_mean(values[:20, 1:2]))
        xr.testing.assert_allclose(result.isel(cell=[1]), alone)
        assert np.isnan(result.p_value[2])


def test_dates_may_come_in_any_order():
    values = dated(series(PROCESSES["AR(1) 0.5"], 30, 2, 21))
    shuffled = values.isel(init_time=np.random.default_rng(0).permutation(30))
    test = EqualWeightedCosine()
    xr.testing.assert_identical(test.of(of_mean(values)), test.of(of_mean(shuffled)))
    sums, other = squared_errors(values**2), squared_errors(shuffled**2)
    expected = test.of(of_score(RMSE, sums))
    xr.testing.assert_allclose(test.of(of_score(RMSE, other)), expected, rtol=1e-12)


def test_uneven_dates_are_said():
    values = dated(series(WHITE, 12, 1, 22))
    assert "spacing" not in EqualWeightedCosine().of(of_mean(values)).attrs
    gappy = values.isel(init_time=[0, 1, 2, 5, 6, 8, 9, 10])
    found = EqualWeightedCosine().of(of_mean(gappy)).attrs["spacing"]
    assert "24 to 72 h apart" in found


def test_forecasts_that_never_differ_do_not_differ():
    values = squared_errors(dated(series(WHITE, 12, 2, 23) ** 2))
    for test in TESTS:
        result = test.of(of_difference(RMSE, values, values))
        np.testing.assert_array_equal(result.p_value, 1.0)
        np.testing.assert_array_equal(result.upper, 0.0)


@pytest.mark.parametrize("test", TESTS)
def test_a_difference_that_never_changes_is_certain(test):
    values = dated(np.full((16, 3), (0.1, -0.7, 1e6 / 3)))
    found = test.of(of_mean(values))
    for name in ("lower", "upper"):
        np.testing.assert_allclose(found[name], found.estimate, rtol=1e-12)
    assert (found.p_value <= 1 / 200).all()


# False discoveries


def test_discoveries_are_those_of_benjamini_and_hochberg():
    rng = np.random.default_rng(24)
    p_value = xr.DataArray(rng.random((6, 40)) ** 3, dims=("channel", "cell"))
    expected = stats.false_discovery_control(p_value.values, axis=1) <= 0.1
    assert expected.any()
    assert not expected.all()
    np.testing.assert_array_equal(false_discovery(p_value, 0.1, ["cell"]), expected)
    whole = stats.false_discovery_control(p_value.values.ravel()).reshape(6, 40) <= 0.1
    np.testing.assert_array_equal(false_discovery(p_value, 0.1), whole)
    np.testing.assert_array_equal(
        false_discovery(p_value.T, 0.1, ["cell"]).transpose("channel", "cell"), expected
    )


def test_a_value_at_its_limit_is_a_discovery():
    assert false_discovery(xr.DataArray([0.05, 1.0], dims="cell"), 0.1).values.tolist() == [1, 0]


def test_where_there_is_no_test_there_is_no_discovery():
    p_value = xr.DataArray([0.04, np.nan, 0.03, np.nan], dims="cell")
    assert false_discovery(p_value, 0.05).values.tolist() == [True, False, True, False]
    assert not false_discovery(p_value * np.nan).any()


@pytest.mark.parametrize("process", ["AR(1) 0.3", "AR(1) 0.8"])
def test_a_field_without_a_difference_is_rarely_significant(process):
    """All values of a field are one series with noise: strong correlation in space."""
    rng = np.random.default_rng(25)
    shared = series((PROCESSES | PERSISTENT)[process], 60, 400, 26)[:, :, None]
    fields = dated(shared + rng.standard_normal((60, 400, 30)), ("field", "cell"))
    p_value = EqualWeightedCosine().of(of_mean(fields)).p_value
    any_point = false_discovery(p_value, 0.10, ["cell"]).any("cell")
    assert float(any_point.mean()) < 0.1
    assert float((p_value <= 0.05).any("cell").mean()) > 0.2


# Refusals


def test_refusals_say_what_was_found():
    values = dated(series(WHITE, 3, 1, 27))
    with pytest.raises(InputError, match="at least 4 init times, found 3"):
        EqualWeightedCosine().of(of_mean(values))
    with pytest.raises(InputError, match="at least 21 init times, found 20"):
        EqualWeightedCosine(20).of(of_mean(dated(series(WHITE, 20, 1, 27))))
    with pytest.raises(InputError, match="at least 10 init times, found 9"):
        StationaryBootstrap(Key(0)).of(of_mean(dated(series(WHITE, 9, 1, 27))))
    with pytest.raises(InputError, match="init_time is not among"):
        of_mean(values.rename(init_time="time"))
    with pytest.raises(InputError, match=r"2006-01-01.* comes twice"):
        of_mean(xr.concat([values, values[:1]], "init_time"))
    with pytest.raises(InputError, match="level is 95"):
        EqualWeightedCosine().of(of_mean(values), level=95)
    with pytest.raises(InputError, match="rate is 5"):
        false_discovery(values, rate=5)
    with pytest.raises(InputError, match="no dimension 'place'"):
        false_discovery(values, over=["place"])


def test_pairs_without_common_labels_are_refused():
    values = squared_errors(dated(series(WHITE, 12, 1, 28) ** 2))
    later = values.totals["squared_error"]
    later = later.assign_coords(init_time=later.init_time + pd.Timedelta("400D"))
    with pytest.raises(InputError, match=r"no init_time is common to both: found 2006.*2007"):
        of_difference(RMSE, values, squared_errors(later))
    with pytest.raises(InputError, match="'squared_error', found sums of variance"):
        of_score(RMSE, squared_errors(later, Variance().key))
    with pytest.raises(InputError, match="do not keep init_time"):
        of_score(RMSE, squared_errors(later.isel(init_time=0, drop=True)))
