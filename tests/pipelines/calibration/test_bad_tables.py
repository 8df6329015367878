"""Tables that cannot be meant: one message each, which names the file and what was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.errors import InputError
from pipelines.calibration.cases import read_members
from pipelines.calibration.methods import method_from
from pipelines.calibration.models import model_quantiles
from pipelines.calibration.steps import FitSettings, fit

LEVELS = (0.1, 0.5, 0.9)
CONFORMAL = {"method": "conformal", "levels": LEVELS}
AGGREGATION = {"method": "aggregation", "levels": LEVELS, "most_rounds": 2}


@pytest.fixture
def forecast() -> pd.DataFrame:
    """One model, 24 daily init times, one lead, two places."""
    rng = np.random.default_rng(2)
    rows = [
        [date, 24, place, *(rng.normal() + np.array([-1.0, 0.0, 1.0]))]
        for date in pd.date_range("2024-01-01", periods=24)
        for place in ("01", "02")
    ]
    return pd.DataFrame(rows, columns=["init_time", "lead_time", "location", "0.1", "0.5", "0.9"])


@pytest.fixture
def truth() -> pd.DataFrame:
    """At every valid time and place."""
    rng = np.random.default_rng(3)
    rows = [
        [date, place, rng.normal()]
        for date in pd.date_range("2024-01-02", periods=24)
        for place in ("01", "02")
    ]
    return pd.DataFrame(rows, columns=["valid_time", "location", "value"])


def written(table: pd.DataFrame, path: Path) -> Path:
    table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("value", lambda own: own.where(own.index > 0, np.inf), "column 'value' is infinite in 1"),
        ("value", lambda own: own.astype(object).where(own.index != 1, "high"),
         "column 'value' holds 'high', expected numbers"),
        ("value", lambda own: own * np.nan, "has no truth of value: every value is missing"),
        ("location", lambda own: own.where(own.index > 1), "column 'location' is empty in 2 rows"),
        ("location", lambda own: own.replace("02", "01"),
         "24 rows repeat a key of valid_time, location; the first is 2024-01-02T00:00:00, 01"),
        ("location", lambda own: own + "x",
         "has no location of the forecasts; found '01x', expected '01'"),
        ("valid_time", lambda own: own.astype(str).where(own.index > 0, "soon"),
         "times of the table cannot be read: Time data soon is not ISO8601 format$"),
    ],
)  # fmt: skip
def test_wrong_truth_is_refused(forecast, truth, tmp_path, column, change, message):
    truth[column] = change(truth[column])
    with pytest.raises(InputError, match=f"truth.csv: {message}"):
        fit(written(forecast, tmp_path / "a.csv"), written(truth, tmp_path / "truth.csv"),
            tmp_path / "c", method_from(CONFORMAL))  # fmt: skip
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: own.iloc[:0], "a.csv: the table has no row"),
        (lambda own: own.assign(**{"0.5": "low"}), "a.csv: column '0.5' holds 'low', expected num"),
        (lambda own: own.rename(columns={"0.9": "1.9"}), r"a.csv: .* must lie within \(0, 1\)"),
        (lambda own: own.iloc[[0, *range(48)]], "a.csv: 1 rows repeat a key of model, init_time"),
        # A level that one case lacks, and one that a whole date lacks.
        (lambda own: own.assign(**{"0.5": own["0.5"].where(own.index != 5)}),
         "a.csv: value at 2024-01-03T00 lacks the quantile of level 0.5 in 1 cases that have othe"),
        (lambda own: own.assign(**{"0.9": own["0.9"].where(own.index > 1)}),
         "a.csv: value at 2024-01-01T00 lacks the quantile of level 0.9 in 2 cases that have othe"),
        (lambda own: own.assign(**{"0.9": own["0.5"] - 1}),
         "a.csv: quantiles of value at 2024-01-01T00 cross in 2 cases"),
    ],
)  # fmt: skip
def test_wrong_forecasts_are_refused(forecast, truth, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        fit(written(change(forecast), tmp_path / "a.csv"), written(truth, tmp_path / "truth.csv"),
            tmp_path / "c", method_from(CONFORMAL))  # fmt: skip
    assert not (tmp_path / "c").exists()


def test_models_that_are_wrong_are_named_with_their_file(forecast, truth, tmp_path):
    good, observed = written(forecast, tmp_path / "a.csv"), written(truth, tmp_path / "truth.csv")
    crossed = written(forecast.assign(**{"0.9": forecast["0.5"] - 1}), tmp_path / "b.csv")
    several = forecast.merge(pd.DataFrame({"model": ["x", "y"]}), "cross")
    table, method = written(several, tmp_path / "hub.csv"), method_from(AGGREGATION)
    for models, message in (
        ({"ours": good, "theirs": crossed}, "b.csv: model theirs: quantiles of value at .* cross"),
        ([good, crossed], "b.csv: model b: quantiles of value at 2024-01-01T00 cross in 2 cases"),
        ({"all": table}, r"hub.csv: .* names 2 models \(x, y\), .* give --forecast .*hub.csv"),
    ):
        with pytest.raises(InputError, match=message):
            fit(models, observed, tmp_path / "c", method)
    fit(table, observed, tmp_path / "c", method)


def test_dates_without_truth_judge_nothing(forecast, truth, tmp_path):
    other = forecast.assign(**{name: forecast[name] + 1 for name in ("0.1", "0.5", "0.9")})
    both = [written(forecast, tmp_path / "a.csv"), written(other, tmp_path / "b.csv")]
    observed, method = written(truth, tmp_path / "truth.csv"), method_from(AGGREGATION)
    early = FitSettings(known_by=np.datetime64("2024-01-17", "s"))
    known = fit(both, observed, tmp_path / "c", method, early).states["value"]
    for table, path in zip((forecast, other), both, strict=True):
        written(table[table.init_time < "2024-01-17"], path)
    alone = fit(both, observed, tmp_path / "d", method).states["value"]
    pd.testing.assert_frame_equal(known.table, alone.table)


def test_a_model_that_lacks_a_level_on_a_date_lends_it_no_other(forecast, tmp_path):
    first = forecast.init_time == forecast.init_time.min()
    lacking = forecast.assign(**{"0.9": forecast["0.9"].where(~first)})
    both = [written(forecast, tmp_path / "a.csv"), written(lacking, tmp_path / "b.csv")]
    dataset = method_from(AGGREGATION).open(both, None)
    members = read_members(dataset, "value", 0, np.array([0]))
    found = model_quantiles(members, LEVELS, ["a", "b"]).isel(lead_time=0)
    expected = forecast[first][["0.1", "0.5", "0.9"]].to_numpy().T
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    np.testing.assert_allclose(found[1], [*expected[:2], [np.nan, np.nan]], rtol=1e-5)
