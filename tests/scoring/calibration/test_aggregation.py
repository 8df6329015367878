import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy.special import ndtri

from data.errors import InputError, StoreError
from data.key import Key
from scoring.calibration.aggregation import Aggregator, known_at
from scoring.calibration.aggregation_training import Batch, Cases, Training
from scoring.calibration.aggregation_weights import UNCONSTRAINED, Coarse, Fine, Local, Medium
from scoring.calibration.features import Category, Centre, Coordinate, Spread
from scoring.calibration.monotone import ISOTONIC, SORT, Crossing
from scoring.calibration.pools import Mean
from scoring.quantiles import quantile_score

LEVELS = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
DIMS = ("init_time", "site", "model", "quantile")
QUICK = Training(learning_rate=0.03, batch=256, most_rounds=30, patience=4)
SHAPES = [(resolution, constraint) for resolution in (Coarse(), Medium(), Fine())
          for constraint in (Aggregator().constraint, UNCONSTRAINED)]  # fmt: skip


def models(dates: int = 60, sites: int = 40, seed: int = 0) -> xr.DataArray:
    """Three models that err independently, each with its own width."""
    draw = Key(seed).generator()
    centre = draw.normal(size=(dates, sites, 3, 1))
    width = np.exp(0.3 * draw.normal(size=(dates, sites, 3, 1)))
    coordinates = {
        "init_time": pd.date_range("2024-01-01", periods=dates),
        "lead_time": np.timedelta64(24, "h").astype("timedelta64[ns]"),
        "site": np.arange(sites),
        "half": ("site", np.where(np.arange(sites) < sites // 2, "west", "east")),
        "model": ["a", "b", "c"],
        "quantile": LEVELS,
    }
    return xr.DataArray(centre + width * ndtri(LEVELS), coordinates, DIMS)


def truth_of(combined: xr.DataArray, seed: int = 1) -> xr.DataArray:
    """Truth of which the combination (quantiles of it at LEVELS) is the true distribution:
    quantiles are linear in the normal score."""
    score = Key(seed).generator().normal(size=combined.shape[:-1])
    middle = combined.sel(quantile=0.5, drop=True)
    upper = (combined.sel(quantile=0.9, drop=True) - middle) / ndtri(0.9)
    lower = (middle - combined.sel(quantile=0.1, drop=True)) / ndtri(0.9)
    return middle + score * xr.where(score > 0, upper, lower)


def planted(weights: list[float], quantiles: xr.DataArray) -> xr.DataArray:
    return (quantiles * xr.DataArray(weights, {"model": quantiles["model"]})).sum("model")


def mean_score(forecast: xr.DataArray, truth: xr.DataArray) -> float:
    return float(quantile_score(forecast, truth).mean())


@pytest.mark.parametrize("resolution", [Coarse(), Medium()])
def test_planted_convex_weights_are_recovered(resolution):
    quantiles = models()
    truth = truth_of(planted([0.6, 0.3, 0.1], quantiles))
    fitted = Aggregator(resolution, training=QUICK).fit(quantiles, truth, Key(0))
    found = fitted.weights(quantiles)
    assert found.dims == ("model", "quantile")
    np.testing.assert_allclose(found.sum("model"), 1, rtol=1e-6)
    for level in (0.25, 0.5, 0.75):
        np.testing.assert_allclose(found.sel(quantile=level), [0.6, 0.3, 0.1], atol=0.06)


def test_planted_unconstrained_weights_are_recovered():
    quantiles = models()
    truth = truth_of(planted([1.2, -0.4, 0.5], quantiles))
    recipe = Aggregator(Coarse(), constraint=UNCONSTRAINED, training=QUICK)
    found = recipe.fit(quantiles, truth, Key(0)).weights(quantiles)
    np.testing.assert_allclose(found.sel(quantile=0.5), [1.2, -0.4, 0.5], atol=0.06)


def test_planted_fine_weights_are_recovered_as_a_forecast():
    quantiles = models()
    # The outer levels are made of the next inner ones: only fine weights can do that.
    inner = quantiles.isel(quantile=[1, 1, 2, 3, 3]).assign_coords(quantile=LEVELS).mean("model")
    truth = truth_of(inner)
    scores = {}
    for resolution in (Medium(), Fine()):
        fitted = Aggregator(resolution, training=QUICK).fit(quantiles, truth, Key(0))
        scores[type(resolution)] = mean_score(fitted.apply(quantiles), truth)
    best = mean_score(inner, truth)
    assert scores[Fine] - best < 0.25 * (scores[Medium] - best)


def test_planted_local_weights_are_recovered():
    quantiles = models(sites=60)
    west, east = planted([0.9, 0.1, 0.0], quantiles), planted([0.0, 0.1, 0.9], quantiles)
    truth = truth_of(west.where(quantiles["half"] == "west", east).transpose(..., "quantile"))
    local = Local((Category("half", ("west",)), Coordinate("lead_time")), hidden=8)
    fitted = Aggregator(Coarse(), local, training=QUICK).fit(quantiles, truth, Key(0))
    for half, expected in {"west": [0.9, 0.1, 0.0], "east": [0.0, 0.1, 0.9]}.items():
        found = fitted.weights(quantiles.isel(site=quantiles["half"].values == half))
        np.testing.assert_allclose(found.isel(quantile=2), expected, atol=0.12)
    overall = Aggregator(Coarse(), training=QUICK).fit(quantiles, truth, Key(0))
    better, worse = (mean_score(one.apply(quantiles), truth) for one in (fitted, overall))
    assert better < 0.9 * worse


@pytest.mark.parametrize(("resolution", "constraint"), SHAPES)
def test_without_training_it_is_the_mean(resolution, constraint):
    quantiles = models(4, 5)
    training = replace(QUICK, validation=0, most_rounds=0)
    recipe = Aggregator(resolution, constraint=constraint, training=training)
    found = recipe.fit(quantiles, quantiles[:, :, 0, 2].drop_vars(("model", "quantile")), Key(0))
    width = float(quantiles.max() - quantiles.min())
    np.testing.assert_allclose(found.apply(quantiles), Mean().of(quantiles), atol=0.01 * width)


@pytest.mark.parametrize("constraint", [Aggregator().constraint, UNCONSTRAINED])
def test_equal_weights_are_renormalised_where_models_are_missing(constraint):
    quantiles = models(4, 5)
    quantiles[1, 2, 0] = np.nan
    quantiles[2, :, :2] = np.nan
    quantiles[3, 0] = np.nan
    truth = models(4, 5, seed=2)[:, :, 0, 2].drop_vars(("model", "quantile"))
    training = replace(QUICK, validation=0, most_rounds=0)
    fitted = Aggregator(Medium(), constraint=constraint, training=training)
    found = fitted.fit(quantiles, truth, Key(0)).apply(quantiles)
    np.testing.assert_allclose(found, Mean().of(quantiles), atol=1e-6)
    assert np.isnan(found[3, 0]).all()
    assert int(found.isnull().sum()) == LEVELS.size


@pytest.mark.parametrize("resolution", [Coarse(), Medium(), Fine()])
def test_trained_weights_are_renormalised_where_models_are_missing(resolution):
    quantiles = models(20, 10)
    truth = truth_of(planted([0.6, 0.3, 0.1], quantiles))
    fitted = Aggregator(resolution, training=QUICK).fit(quantiles, truth, Key(0))
    some = quantiles.where(quantiles["model"] != "a")
    weights = fitted.weights(quantiles)
    if "input_quantile" in weights.dims:
        kept = weights.where(weights["model"] != "a", 0.0)
        inputs = quantiles.rename(quantile="input_quantile")
        over = ["model", "input_quantile"]
    else:
        kept, inputs, over = weights.where(weights["model"] != "a", 0.0), quantiles, ["model"]
    expected = (kept * inputs).sum(over) / kept.sum(over)
    expected = expected.transpose(..., "quantile")
    np.testing.assert_allclose(fitted.apply(some), np.sort(expected, axis=-1), atol=2e-2)


def test_no_case_is_dropped_and_no_case_has_a_say_in_another():
    quantiles = models(20, 10)
    quantiles[::3, ::2, 1] = np.nan
    truth = truth_of(models(20, 10)[:, :, 0].drop_vars("model"))
    fitted = Aggregator(training=QUICK).fit(quantiles, truth, Key(0))
    whole = fitted.apply(quantiles)
    assert whole.notnull().all()
    alone = fitted.apply(quantiles.isel(init_time=[3], site=[4]))
    np.testing.assert_allclose(alone, whole[[3]][:, [4]], rtol=1e-5, atol=1e-6)


def test_same_key_same_weights_whatever_was_drawn_before():
    quantiles = models(20, 10)
    truth = truth_of(Mean().of(quantiles))
    training = replace(QUICK, validation=0, most_rounds=3)
    recipe = Aggregator(Fine(), Local((Centre(), Spread()), 4), training=training)
    found = []
    for key, seed in ((Key(0), 1), (Key(0), 2), (Key(1), 1)):
        torch.manual_seed(seed)
        found.append(recipe.fit(quantiles, truth, key).apply(quantiles))
    xr.testing.assert_identical(found[0], found[1])
    assert not found[0].equals(found[2])


def test_order_of_dimensions_does_not_matter():
    quantiles = models(20, 10)
    truth = truth_of(Mean().of(quantiles))
    fitted = Aggregator(training=QUICK).fit(quantiles, truth, Key(0))
    turned = quantiles.transpose("quantile", "site", "model", "init_time")
    found = fitted.apply(turned)
    assert found.dims == ("quantile", "site", "init_time")
    np.testing.assert_allclose(
        found.transpose("init_time", "site", "quantile"), fitted.apply(quantiles), atol=1e-6
    )


def test_future_truth_does_not_reach_training():
    quantiles = models(30, 10)
    truth = truth_of(planted([0.6, 0.3, 0.1], quantiles))
    date = quantiles["init_time"].values[20]
    known = known_at(truth, date)
    assert known.notnull().all("site").values.tolist() == [True] * 20 + [False] * 10
    later = known_at(truth, date, np.timedelta64(48, "h"))
    assert int(later.notnull().all("site").sum()) == 18
    spoiled = truth.where(truth["init_time"] < date, 1e6)
    recipe = Aggregator(Coarse(), training=QUICK)
    found = [recipe.fit(quantiles, known_at(one, date), Key(0)) for one in (truth, spoiled)]
    xr.testing.assert_identical(*(one.weights(quantiles) for one in found))


def test_cases_that_stop_training_are_later_than_all_that_train():
    quantiles = models(20, 3).assign_coords(lead_time=np.timedelta64(72, "h"))
    truth = quantiles[:, :, 0, 2].drop_vars(("model", "quantile"))
    cases = Cases.of(quantiles, truth, None, ())
    early, late = cases.split(0.25)
    assert len(np.unique(late.init_time)) == 5
    assert early.known.max() <= late.init_time.min()
    assert len(np.unique(early.init_time)) == 13
    with pytest.raises(InputError, match="no case was known at"):
        cases.split(0.95)


def test_weights_of_cases_count():
    quantiles = models(sites=60)
    west, east = planted([0.9, 0.1, 0.0], quantiles), planted([0.0, 0.1, 0.9], quantiles)
    truth = truth_of(west.where(quantiles["half"] == "west", east).transpose(..., "quantile"))
    weights = xr.where(quantiles["half"] == "west", 1.0, 0.0)
    fitted = Aggregator(Coarse(), training=QUICK).fit(quantiles, truth, Key(0), weights)
    np.testing.assert_allclose(
        fitted.weights(quantiles).isel(quantile=2), [0.9, 0.1, 0.0], atol=0.06
    )


@pytest.mark.parametrize("inside", [SORT, ISOTONIC])
def test_fine_weights_trained_in_order_issue_quantiles_in_order(inside):
    quantiles = models(30, 20)
    truth = truth_of(Mean().of(quantiles))
    recipe = Aggregator(Fine(), inside=inside, crossing=Crossing(1.0), training=QUICK)
    found = recipe.fit(quantiles, truth, Key(0)).apply(quantiles)
    assert (found.diff("quantile") >= 0).all()
    assert mean_score(found, truth) < 1.02 * mean_score(Mean().of(quantiles), truth)


def test_penalty_reduces_crossing():
    quantiles = models(30, 20)
    quantiles[:, :, 0] = quantiles[:, :, 0].values[:, :, ::-1]
    truth = truth_of(quantiles[:, :, 1].drop_vars("model"))
    crossed = []
    for crossing in (None, Crossing(20.0)):
        training = replace(QUICK, validation=0, most_rounds=3)
        recipe = Aggregator(Coarse(), crossing=crossing, training=training)
        found = recipe.fit(quantiles, truth, Key(0))
        raw = planted(found.weights(quantiles)[:, 0].values.tolist(), quantiles)
        crossed.append(float((raw.diff("quantile") < 0).mean()))
    assert crossed[1] < crossed[0]


def test_shrinking_keeps_weights_near_equal():
    quantiles = models()
    truth = truth_of(planted([1.0, 0.0, 0.0], quantiles))
    free, shrunk = (
        Aggregator(Coarse(), training=replace(QUICK, weight_decay=decay))
        .fit(quantiles, truth, Key(0))
        .weights(quantiles)
        for decay in (0.0, 3.0)
    )
    assert float(free.max()) > 0.9
    assert 1 / 3 < float(shrunk.sel(model="a").max()) < 0.7


def test_saved_aggregation_is_restored(tmp_path):
    quantiles = models(20, 10)
    truth = truth_of(Mean().of(quantiles))
    recipe = Aggregator(Medium(), Local((Centre(),), 4), training=QUICK)
    fitted = recipe.fit(quantiles, truth, Key(0))
    fitted.save(tmp_path / "weights.safetensors")
    restored = type(fitted).load(tmp_path / "weights.safetensors", recipe)
    assert restored.rounds == fitted.rounds
    xr.testing.assert_identical(restored.apply(quantiles), fitted.apply(quantiles))
    other = replace(recipe, resolution=Coarse())
    with pytest.raises(StoreError, match=r"has recipe .*Medium.* expected .*Coarse"):
        type(fitted).load(tmp_path / "weights.safetensors", other)
    with pytest.raises(StoreError, match="no aggregation is there"):
        type(fitted).load(tmp_path / "nothing", recipe)


def test_a_batch_takes_cases_as_an_index_does():
    generator = torch.Generator().manual_seed(0)
    shapes = (20_000, 3, 23), (20_000, 3, 23), (20_000, 2), (20_000,), (20_000,)
    parts = [torch.randn(shape, generator=generator) for shape in shapes]
    which = torch.randperm(20_000, generator=generator)[:1000]
    for found, part in zip(vars(Batch(*parts).take(which)).values(), parts, strict=True):
        assert torch.equal(found, part[which])


def test_wrong_inputs_are_refused():
    quantiles = models(8, 3)
    truth = quantiles[:, :, 0, 2].drop_vars(("model", "quantile"))
    recipe = Aggregator(Coarse(), training=QUICK)
    with pytest.raises(InputError, match=r"models \['b'\] have no case"):
        recipe.fit(quantiles.where(quantiles["model"] != "b"), truth, Key(0))
    with pytest.raises(InputError, match="no case that has both"):
        recipe.fit(quantiles, truth.where(truth > 1e9), Key(0))
    with pytest.raises(InputError, match="truth needs the dimensions"):
        recipe.fit(quantiles, truth.isel(site=0), Key(0))
    with pytest.raises(InputError, match="different coordinates"):
        recipe.fit(quantiles, truth.isel(site=[0, 1]), Key(0))
    with pytest.raises(InputError, match="must increase"):
        recipe.fit(quantiles.isel(quantile=[1, 0]), truth, Key(0))
    with pytest.raises(InputError, match="needs a dimension model"):
        recipe.fit(quantiles.isel(model=0), truth, Key(0))
    fitted = recipe.fit(quantiles, truth, Key(0))
    with pytest.raises(InputError, match="was fitted for the models"):
        fitted.apply(quantiles.isel(model=[1, 0, 2]))
    with pytest.raises(InputError, match="was fitted for the quantiles"):
        fitted.apply(quantiles.isel(quantile=[0, 1]))
    with pytest.raises(InputError, match="'latitude' is not among the coordinates"):
        Aggregator(Coarse(), Local((Coordinate("latitude"),))).fit(quantiles, truth, Key(0))


def test_example_of_the_page_runs():
    page = Path(__file__).parents[3] / "docs" / "aggregation.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    quantiles = models(20, 5)
    names = {"quantiles": quantiles, "truth": truth_of(Mean().of(quantiles))}
    exec(example, names)
    for name in ("forecast", "pooled"):
        assert names[name].dims == ("init_time", "site", "quantile")
        assert names[name].notnull().all()
    assert names["table"].loc["linear pool", "cases"] == 5
