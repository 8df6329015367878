import tracemalloc

import numpy as np
import pytest
import scoringrules
import xarray as xr

from data.errors import InputError
from scoring.crps import CRPS, FAIR, STANDARD, STRATIFIED, AlmostFair, SubEnsemble
from scoring.multivariate import EnergyScore, VariogramScore
from scoring.sums import Sums

DIMS = ("init_time", "channel", "number", "x")


def ensemble(members: int = 9, channels: int = 4, offset: float = 0.0) -> tuple[xr.DataArray, ...]:
    rng = np.random.default_rng(members)
    forecast = offset + rng.standard_normal((3, channels, members, 5))
    truth = offset + rng.standard_normal((3, channels, 5))
    dates = {"init_time": np.arange(3)}
    labelled = xr.DataArray(forecast, dates, DIMS)
    return labelled, xr.DataArray(truth, dates, ("init_time", "channel", "x"))


SCORES = [
    score(estimator=estimator)
    for score in (EnergyScore, VariogramScore)
    for estimator in (FAIR, STANDARD, AlmostFair(0.9), SubEnsemble(4))
]
each_score = pytest.mark.parametrize("score", SCORES, ids=lambda score: score.key)
NAMES = {FAIR: "fair", STANDARD: "nrg"}


@pytest.mark.parametrize("estimator", [FAIR, STANDARD])
def test_energy_score_is_that_of_scoringrules(estimator):
    forecast, truth = ensemble()
    found = EnergyScore(("channel",), estimator)(forecast, truth)
    assert found.dims == ("init_time", "x")
    expected = scoringrules.es_ensemble(
        truth.transpose("init_time", "x", "channel").values,
        forecast.transpose("init_time", "x", "number", "channel").values,
        estimator=NAMES[estimator],
        backend="numpy",
    )
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("estimator", [FAIR, STANDARD])
@pytest.mark.parametrize("power", [0.5, 1.0, 1.7])
def test_variogram_score_is_that_of_scoringrules(estimator, power):
    forecast, truth = ensemble()
    found = VariogramScore(("channel",), power, estimator)(forecast, truth)
    expected = scoringrules.vs_ensemble(
        truth.transpose("init_time", "x", "channel").values,
        forecast.transpose("init_time", "x", "number", "channel").values,
        p=power,
        estimator=NAMES[estimator],
        backend="numpy",
    )
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_energy_score_of_one_variable_is_the_crps():
    forecast, truth = ensemble(channels=1)
    for estimator in (FAIR, STANDARD, AlmostFair(0.9), SubEnsemble(4)):
        expected = CRPS(estimator)(forecast, truth).isel(channel=0)
        found = EnergyScore(("channel",), estimator)(forecast, truth)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@each_score
def test_weights_are_variables_counted_twice(score):
    forecast, truth = ensemble()
    weights = xr.DataArray([1.0, 2.0, 1.0, 0.0], dims="channel")
    repeated = {"channel": [0, 1, 1, 2]}
    expected = score(forecast.isel(repeated), truth.isel(repeated))
    np.testing.assert_allclose(score(forecast, truth, weights=weights), expected, rtol=1e-12)


@each_score
def test_variables_may_lie_along_several_dimensions_in_any_order(score):
    forecast, truth = ensemble()
    joined = type(score)(("x", "channel"), estimator=score.estimator)
    found = joined(forecast.transpose("x", "number", "channel", "init_time"), truth)
    stacked = type(score)(("z",), estimator=score.estimator)
    expected = stacked(forecast.stack(z=("channel", "x")), truth.stack(z=("channel", "x")))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@each_score
def test_blocks_change_nothing(score, monkeypatch):
    forecast, truth = ensemble(members=23)
    expected = score(forecast, truth)
    for values in (1, 30, 200, 2000):
        monkeypatch.setattr("scoring.multivariate._BLOCK_VALUES", values)
        np.testing.assert_allclose(score(forecast, truth), expected, rtol=1e-12)


@each_score
def test_missing_values_stay_in_their_sample(score):
    forecast, truth = ensemble()
    expected = score(forecast, truth)
    forecast[1, 2, 3, 4] = np.nan
    truth[0, 0, 0] = np.nan
    found = score(forecast, truth)
    assert np.isnan(found.values[[1, 0], [4, 0]]).all()
    assert np.isnan(found).sum() == 2
    np.testing.assert_array_equal(found.where(found.notnull(), expected), expected)


@each_score
def test_infinite_values_are_missing(score):
    forecast, truth = ensemble()
    expected = score(forecast, truth)
    forecast[1, 2, 3, 4] = -np.inf
    forecast[1, :, :2, 3] = np.inf
    forecast[2, 0, 0, 0] = truth[2, 0, 0] = np.inf
    truth[0, 0, 0] = np.inf
    found = score(forecast, truth)
    assert np.isnan(found.values[[1, 1, 2, 0], [4, 3, 0, 0]]).all()
    assert np.isnan(found).sum() == 4
    np.testing.assert_array_equal(found.where(found.notnull(), expected), expected)


@each_score
def test_of_no_samples_there_are_no_scores(score):
    forecast, truth = ensemble()
    none = forecast.isel(x=slice(0, 0)), truth.isel(x=slice(0, 0))
    assert score(*none, weights=xr.DataArray(np.ones(4), dims="channel")).shape == (3, 0)
    with pytest.raises(InputError, match=r"vectors need variables, found dimensions .*'x'"):
        type(score)(("channel", "x"), estimator=score.estimator)(*none)


@pytest.mark.parametrize("score", [EnergyScore, VariogramScore])
def test_estimators_meet_their_definition_over_sub_ensembles(score):
    """The standard score of every two members, and what SubEnsemble expects, are the same."""
    forecast, truth = ensemble(members=5)
    two = [
        score(estimator=STANDARD)(forecast.isel(number=[i, j]), truth)
        for i in range(5)
        for j in range(i)
    ]
    np.testing.assert_allclose(
        score(estimator=SubEnsemble(2))(forecast, truth), sum(two) / len(two), rtol=1e-11
    )


def test_fair_scores_do_not_depend_on_the_number_of_members_on_average():
    rng = np.random.default_rng(1)
    factor = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.3, 0.2, 0.9]])
    drawn = xr.DataArray(rng.standard_normal((4000, 17, 3)) @ factor.T, dims=("t", "number", "v"))
    truth, members = drawn.isel(number=16), drawn.isel(number=slice(0, 16))
    for score in (EnergyScore(("v",)), VariogramScore(("v",))):
        small = score(members.isel(number=slice(0, 3)), truth)
        large = score(members, truth)
        error = float((small - large).std() / np.sqrt(4000))
        assert abs(float(small.mean() - large.mean())) < 3 * error


@each_score
def test_members_far_from_zero_and_nearly_alike_keep_their_digits(score):
    forecast, truth = ensemble()
    alike = forecast.copy(data=1e-6 * forecast.values)
    alike[:, :, ::2] += 1.0  # two clusters
    direct = score(alike, truth)
    np.testing.assert_allclose(score(alike + 2.0**16, truth + 2.0**16), direct, rtol=1e-6)
    same = xr.zeros_like(forecast) + forecast.isel(number=0)
    one = type(score)(estimator=STANDARD)(forecast.isel(number=[0]), truth)
    np.testing.assert_allclose(score(same.transpose(*DIMS), truth), one, rtol=1e-12)


def test_energy_score_of_clusters_is_its_definition():
    forecast, truth = ensemble()
    values = 1e-8 * forecast.values
    values[:, :, ::2] += 1.0
    apart = values[:, :, :, None] - values[:, :, None]
    spread = np.sqrt((apart**2).sum(1)).mean((1, 2)) / 2
    error = np.sqrt(((values - truth.values[:, :, None]) ** 2).sum(1)).mean(1)
    found = EnergyScore(estimator=STANDARD)(forecast.copy(data=values), truth)
    np.testing.assert_allclose(found, error - spread, rtol=1e-12)


def test_a_single_member_has_standard_scores_only():
    forecast, truth = ensemble()
    alone = forecast.isel(number=[0])
    energy = EnergyScore(estimator=STANDARD)(alone, truth)
    error = (alone - truth).isel(number=0)
    np.testing.assert_allclose(energy, np.sqrt((error**2).sum("channel")), rtol=1e-12)
    assert np.isfinite(VariogramScore(estimator=STANDARD)(alone, truth)).all()
    with pytest.raises(InputError, match="fair needs at least 2 members, found 1"):
        EnergyScore()(alone, truth)


def test_scores_go_into_sums():
    forecast, truth = ensemble()
    values = xr.Dataset({score.key: score(forecast, truth) for score in SCORES})
    assert len(values) == len(SCORES)
    sums = Sums.of(values, xr.ones_like(values.x, float), ("x",))
    for score in SCORES:
        np.testing.assert_allclose(sums.mean(score.key), values[score.key].mean(), rtol=1e-13)


@each_score
def test_weights_are_a_part_of_the_name(score):
    forecast, truth = ensemble()
    names = {
        score(forecast, truth, weights=xr.DataArray(weights, dims="channel")).name
        for weights in ([1.0, 2, 3, 4], [4.0, 3, 2, 1], [1.0, 1, 1, 1], [1, 1, 1, 1])
    }
    assert len(names) == 3
    assert score(forecast, truth).name == score.key in names
    assert all(name.startswith(score.key) for name in names)
    one, other = (
        score(forecast, truth, weights=xr.DataArray(weights, dims="channel"))
        for weights in ([1.0, 2, 3, 4], [1.0, 1, 1, 1])
    )
    cells = xr.ones_like(one, float)
    sums = [Sums.of(values.to_dataset(), cells, ("x",)) for values in (one, other)]
    np.testing.assert_allclose(
        (sums[0] + sums[1]).mean(one.name, over=()), one.mean("x"), rtol=1e-13
    )


def test_memory_is_that_of_blocks_and_not_of_pairs():
    rng = np.random.default_rng(2)
    forecast = xr.DataArray(rng.standard_normal((1500, 40), dtype=np.float32), dims=("number", "v"))
    truth = xr.zeros_like(forecast.isel(number=0))
    tracemalloc.start()
    found = EnergyScore(("v",))(forecast, truth)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.dims == ()
    assert peak < 60e6  # all pairs of differences would be 720 MB, all distances 18 MB


def test_what_does_not_fit_is_refused():
    forecast, truth = ensemble()
    with pytest.raises(InputError, match=r"no dimension \['level'\]"):
        EnergyScore(("level",))(forecast, truth)
    with pytest.raises(InputError, match="independent members"):
        EnergyScore(estimator=STRATIFIED)(forecast, truth)
    with pytest.raises(InputError, match="must be above 0"):
        VariogramScore(power=0.0)
    with pytest.raises(InputError, match="no dimension 'number' of members, found"):
        EnergyScore(estimator=STANDARD)(forecast.rename(number="member"), truth)
    with pytest.raises(InputError, match="has units 'K', the truth 'm'"):
        EnergyScore()(forecast.assign_attrs(units="K"), truth.assign_attrs(units="m"))
    with pytest.raises(InputError, match="not be negative"):
        EnergyScore()(forecast, truth, weights=xr.DataArray([1.0, -1, 1, 1], dims="channel"))
