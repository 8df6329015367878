"""Forecasts of no cells: results are empty, of the shape that they would have."""

import numpy as np
import pytest
import xarray as xr

from scoring.crps import CRPS
from scoring.quantiles import Quantiles
from scoring.rank import RankHistogram
from scoring.statistic import OMIT, evaluate, evaluate_arrays
from tests.scoring.test_statistic import STATISTICS


@pytest.mark.parametrize("cells", [(0,), (3, 0), (0, 3)])
@pytest.mark.parametrize("how", [{}, {"threads": 2}, {"missing": OMIT}])
def test_of_no_cells_there_are_no_values(cells, how):
    needed = {reference for one in STATISTICS for reference in one.references}
    references = {known: np.zeros((*cells, len(known.levels))) for known in needed}
    for axis in range(len(cells) + 1):
        forecast, truth = np.zeros(np.insert(cells, axis, 20)), np.zeros(cells)
        found = evaluate_arrays(STATISTICS, forecast, truth, axis, references=references, **how)
        for one in STATISTICS:
            labels = (labels.size for labels in one.labels.values())
            assert found[one].shape == (*cells, *labels), one.key


def test_an_empty_dimension_stays_empty():
    forecast = xr.DataArray(np.zeros((3, 4, 0)), dims=("y", "number", "x"))
    for given in (forecast, forecast.chunk(), forecast.transpose()):
        found = evaluate((CRPS(), RankHistogram(4), Quantiles((0.5,))), given, given.isel(number=0))
        assert dict(found.sizes) == {"y": 3, "x": 0, "bin": 4, "quantile": 1}
