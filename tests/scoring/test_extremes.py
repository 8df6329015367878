import numpy as np
import pytest
from earthkit.meteo.extreme.array import efi, sot
from scipy.integrate import quad

from data.errors import InputError
from scoring.extremes import DISCRETE, EXACT, ExtremeForecastIndex, ShiftOfTails
from scoring.statistic import OMIT, evaluate_arrays
from scoring.thresholds import Reference

PERCENTILES = Reference("climate", tuple(np.linspace(0, 1, 101)))
TAIL = Reference("climate", (0.9, 0.99))
DISCRETE_INDEX = ExtremeForecastIndex(PERCENTILES, DISCRETE)
EXACT_INDEX = ExtremeForecastIndex(PERCENTILES, EXACT)


def case(members: int, kind: str = "temperature", cells: int = 40):
    """Members, (member, cell), and percentiles, (cell, 101), float64."""
    rng = np.random.default_rng(members)
    climate = rng.normal(0, 3, (cells, 2000))
    forecast = rng.normal(rng.normal(0, 3, cells), 1.5, (members, cells))
    if kind == "precipitation":
        climate, forecast = np.maximum(climate - 1, 0), np.maximum(forecast - 1, 0)
    return forecast, np.quantile(climate, PERCENTILES.levels, axis=1).T.copy()


def value(statistic, forecast, climate, **options):
    references = {
        reference: climate[:, np.isin(np.round(PERCENTILES.levels, 2), reference.levels)]
        if len(reference.levels) < 101
        else climate
        for reference in statistic.references
    }
    truth = np.zeros(forecast.shape[1], forecast.dtype)
    return evaluate_arrays((statistic,), forecast, truth, references=references, **options)[
        statistic
    ]


each_kind = pytest.mark.parametrize("kind", ["temperature", "precipitation"])


@each_kind
@pytest.mark.parametrize("members", [1, 2, 51, 300])
def test_discrete_index_is_that_of_earthkit(kind, members):
    forecast, climate = case(members, kind)
    expected = efi(climate.T, forecast)
    np.testing.assert_allclose(
        value(DISCRETE_INDEX, forecast, climate), expected, rtol=1e-10, atol=1e-12
    )
    rounded = forecast.astype("f4"), climate.astype("f4")
    expected = efi(rounded[1].T.astype(float), rounded[0].astype(float))
    np.testing.assert_allclose(value(DISCRETE_INDEX, *rounded), expected, rtol=1e-5, atol=1e-6)


def test_indices_of_geopotential_in_float32_are_those_of_earthkit():
    forecast, climate = ((54_000 + 20 * x).astype("f4") for x in case(7424, cells=6))
    wide = climate.T.astype(float), forecast.astype(float)
    truth = (54_000 + np.arange(6)).astype("f4")
    references = {
        reference: climate[:, np.isin(np.round(PERCENTILES.levels, 2), reference.levels)]
        for reference in ShiftOfTails(TAIL).references
    }
    statistics = DISCRETE_INDEX, ShiftOfTails(TAIL)
    found = evaluate_arrays(
        statistics, forecast, truth, references={PERCENTILES: climate, **references}
    )
    np.testing.assert_allclose(found[DISCRETE_INDEX], efi(*wide), rtol=1e-5, atol=1e-6)
    expected = sot(wide[0].copy(), wide[1], perc=90)
    np.testing.assert_allclose(found[statistics[1]], expected, rtol=1e-5)


@each_kind
def test_exact_index_is_the_integral_of_its_definition(kind):
    forecast, climate = case(7, kind, cells=3)
    levels = np.array(PERCENTILES.levels)
    found = value(EXACT_INDEX, forecast, climate)
    for cell in range(3):
        members, quantiles = forecast[:, cell], climate[cell]

        def integrand(angle, members=members, quantiles=quantiles):
            # p = sin(angle)^2 takes the root out of the integral.
            p = np.sin(angle) ** 2
            return 2 * (p - (members <= np.interp(p, levels, quantiles)).mean())

        expected = quad(integrand, 0, np.pi / 2, limit=500)[0] * 2 / np.pi
        assert found[cell] == pytest.approx(expected, abs=3e-4)


def test_discrete_index_tends_to_the_exact_one():
    forecast, climate = case(51)
    exact, discrete = (
        value(EXACT_INDEX, forecast, climate),
        value(DISCRETE_INDEX, forecast, climate),
    )
    np.testing.assert_allclose(discrete, exact, atol=0.02)


@pytest.mark.parametrize("statistic", [EXACT_INDEX, DISCRETE_INDEX])
def test_index_is_one_beyond_the_climate_and_zero_for_its_own_draws(statistic):
    forecast, climate = case(20)
    np.testing.assert_allclose(value(statistic, forecast + 100, climate), 1, atol=1e-12)
    np.testing.assert_allclose(value(statistic, forecast - 100, climate), -1, atol=1e-12)
    positions = (np.arange(1000) + 0.5) / 1000
    drawn = np.stack([np.interp(positions, PERCENTILES.levels, row) for row in climate], axis=1)
    np.testing.assert_allclose(value(statistic, drawn, climate), 0, atol=2e-3)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("statistic", [EXACT_INDEX, DISCRETE_INDEX])
def test_index_has_no_unit_also_where_quantiles_are_equal(statistic, unit):
    forecast, climate = case(20)
    climate[:, -3:] = climate[:, -3, None]  # as of a climatology of few values
    climate[:, :2] = climate[:, 1, None]
    expected = value(statistic, forecast, climate)
    found = value(statistic, unit * forecast, unit * climate)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    beyond = value(statistic, climate.max(axis=1) + unit * np.ones_like(forecast), climate)
    np.testing.assert_allclose(beyond, 1, atol=1e-12)
    np.testing.assert_allclose(value(statistic, 0 * forecast + unit, 0 * climate), 1, atol=1e-12)


@pytest.mark.parametrize(("level", "tail"), [(0.9, 0.99), (0.1, 0.01)])
@pytest.mark.parametrize("members", [1, 2, 51])
def test_shift_of_tails_is_that_of_earthkit(level, tail, members):
    forecast, climate = case(members)
    found = value(
        ShiftOfTails(Reference("climate", sorted((level, tail))), level, tail), forecast, climate
    )
    expected = sot(climate.T.copy(), forecast, perc=round(100 * level))
    np.testing.assert_allclose(np.clip(found, -10, 10), expected, rtol=1e-10)


def test_shift_of_tails_takes_the_climate_of_the_index():
    forecast, climate = case(20)
    expected = value(ShiftOfTails(TAIL), forecast, climate)
    np.testing.assert_array_equal(value(ShiftOfTails(PERCENTILES), forecast, climate), expected)


def test_a_climate_that_does_not_fit_is_refused():
    for made in (ShiftOfTails, ExtremeForecastIndex):
        with pytest.raises(InputError, match=r'is a Reference\("climate", levels\) .* \'climate\''):
            made("climate")
    with pytest.raises(InputError, match=r"levels 0\.1 and 0\.01, found 0\.9, 0\.99"):
        ShiftOfTails(TAIL, 0.1, 0.01)


def test_shift_of_tails_of_a_climate_without_a_tail_is_missing():
    forecast, climate = case(5)
    climate[3] = 0.0
    found = value(ShiftOfTails(TAIL), forecast, climate)
    assert np.flatnonzero(np.isnan(found)).tolist() == [3]


@pytest.mark.parametrize("statistic", [EXACT_INDEX, DISCRETE_INDEX, ShiftOfTails(TAIL)])
def test_true_counts_are_used_where_members_are_missing(statistic):
    forecast, climate = case(30)
    gaps = forecast.copy()
    gaps[np.random.default_rng(5).random(gaps.shape) < 0.3] = np.nan
    gaps[:, 4] = np.nan
    found = value(statistic, gaps, climate, missing=OMIT)
    assert np.isnan(found[4])
    for cell in (0, 10, 39):
        column = gaps[~np.isnan(gaps[:, cell]), cell][:, None]
        expected = value(statistic, column, climate[cell, None])
        np.testing.assert_allclose(found[cell], expected[0], rtol=1e-12, atol=1e-12)


def test_a_climate_without_ends_is_refused():
    with pytest.raises(InputError, match=r"from level 0 to level 1, found 0\.1 to 1"):
        ExtremeForecastIndex(Reference("climate", (0.1, 0.5, 1.0)))
