import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import ndtri

from data.errors import InputError
from data.key import Key
from scoring.calibration.pools import BestModel
from scoring.comparison import baselines, compare
from scoring.quantiles import quantile_score
from scoring.sample import of_mean
from scoring.significance import EqualWeightedCosine

LEVELS = np.array([0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975])


def pair() -> tuple[xr.DataArray, xr.DataArray]:
    """Models whose errors grow, and truth that is normal."""
    draw = Key(0).generator()
    truth = xr.DataArray(
        draw.normal(size=(40, 25)),
        {"init_time": pd.date_range("2024-01-01", periods=40)},
        ("init_time", "site"),
    )
    error = np.array([0.0, 1.0, 2.0])[:, None, None] * draw.normal(size=(3, 40, 25))
    quantiles = xr.DataArray(
        error[..., None] + ndtri(LEVELS),
        {"model": ["good", "fair", "bad"], "init_time": truth["init_time"], "quantile": LEVELS},
        ("model", "init_time", "site", "quantile"),
    )
    return quantiles, truth


def test_baselines_are_all_beside_it():
    quantiles, truth = pair()
    found = baselines(quantiles, BestModel.fit(quantiles, truth))
    assert set(found) == {
        "mean", "median", "trimmed mean", "linear pool", "logarithmic pool", "best single model",
        "good", "fair", "bad",
    }  # fmt: skip
    for forecast in found.values():
        assert forecast.dims == ("init_time", "site", "quantile")


def test_table_holds_scores_coverage_and_paired_tests():
    quantiles, truth = pair()
    forecasts = baselines(quantiles, BestModel.fit(quantiles, truth))
    table = compare(forecasts, truth, "good")
    assert table.index[0] in ("good", "best single model")
    assert table.loc["bad", "p_value"] < 0.01
    assert table.loc["good", "p_value"] == 1
    assert (table["cases"] == 1000).all()
    assert (table["dates"] == truth.sizes["init_time"]).all()
    assert table.loc["good", "coverage 0.95"] == pytest.approx(0.95, abs=0.02)
    assert table.loc["good", "coverage 0.5"] == pytest.approx(0.5, abs=0.04)
    assert "coverage 0.9" not in table.columns
    scores = {name: quantile_score(forecasts[name], truth) for name in ("bad", "good")}
    assert table.loc["bad", "score"] == pytest.approx(float(scores["bad"].mean()))
    difference = of_mean((scores["bad"] - scores["good"]).mean("site"))
    expected = float(EqualWeightedCosine().of(difference)["p_value"])
    assert table.loc["bad", "p_value"] == pytest.approx(expected)


def test_forecasts_that_miss_cases_are_compared_on_the_others():
    quantiles, truth = pair()
    forecasts = {
        "good": quantiles[0],
        "some": quantiles[0].where(quantiles["init_time"].dt.day > 9),
    }
    forecasts["none"] = quantiles[0] * np.nan
    truth[-1] = np.nan
    table = compare(forecasts, truth, "good")
    assert table.loc["good", "cases"] == 39 * 25
    assert 0 < table.loc["some", "cases"] < 39 * 25
    assert table.loc["some", "relative"] == 1
    assert table.loc["none", "cases"] == 0
    assert np.isnan(table.loc["none", "score"])
    with pytest.raises(InputError, match="'other' is not among"):
        compare(forecasts, truth, "other")
    with pytest.raises(InputError, match="none has no case"):
        compare(forecasts, truth, "none")
