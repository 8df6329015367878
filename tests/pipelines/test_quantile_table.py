import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from data.errors import InputError
from pipelines.quantile_table import quantiles_of_table, read_table, truth_of_table

KEYS = ["init_time", "lead_time", "site"]


def wide() -> pd.DataFrame:
    index = pd.MultiIndex.from_product(
        [["2024-01-01", "2024-01-02"], [24, 48], ["01", "02"]], names=KEYS
    )
    values = np.arange(24.0).reshape(8, 3)
    return pd.DataFrame(values, index, ["q0.1", "q0.5", "q0.9"]).reset_index()


def test_long_and_wide_csv_and_parquet_give_the_same_forecast(tmp_path):
    pytest.importorskip("pyarrow")
    table = wide()
    table.to_csv(tmp_path / "wide.csv", index=False)
    table.to_parquet(tmp_path / "wide.parquet")
    long = table.rename(columns=lambda name: name.removeprefix("q"))
    long = long.melt(KEYS, var_name="quantile").astype({"quantile": float})
    long.to_csv(tmp_path / "long.csv.gz", index=False)
    found = [
        quantiles_of_table(read_table(tmp_path / name, ["site"]), KEYS)
        for name in ("wide.csv", "wide.parquet", "long.csv.gz")
    ]
    assert found[0].dims == (*KEYS, "quantile")
    assert found[0].sizes == {"init_time": 2, "lead_time": 2, "site": 2, "quantile": 3}
    place = {"init_time": "2024-01-02", "lead_time": np.timedelta64(24, "h"), "site": "02"}
    np.testing.assert_array_equal(found[0].sel(place), [15, 16, 17])
    for other in found[1:]:
        xr.testing.assert_equal(found[0], other)


def test_truth_by_valid_time():
    table = pd.DataFrame({"valid_time": ["2024-01-02", "2024-01-03"], "value": [1.0, 2.0]})
    found = truth_of_table(table, ["valid_time"])
    assert float(found.sel(valid_time="2024-01-03")) == 2.0


def test_files_that_are_no_tables_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "nothing.csv")
    (tmp_path / "table.txt").write_text("a")
    with pytest.raises(InputError, match=r"\.parquet or \.csv"):
        read_table(tmp_path / "table.txt")
    (tmp_path / "table.csv").write_text("")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_table(tmp_path / "table.csv")
    with pytest.raises(InputError, match="times of the table cannot be read"):
        quantiles_of_table(wide().assign(init_time="soon"), KEYS)


@pytest.mark.real
def test_sites_that_come_twice_are_refused():
    folder = os.environ.get("MYRIAD_REAL_DATA")
    if not folder:
        pytest.skip("MYRIAD_REAL_DATA names no folder")
    name = "forecast_table_temperature_at_screen_level.parquet"
    table = read_table(Path(folder) / "uk_sites" / name)
    keys = ["blend_time", "forecast_period", "wmo_id", "percentile"]
    with pytest.raises(InputError, match="22230 rows repeat a key"):
        truth_of_table(table.rename(columns={"forecast": "value"}), keys)
