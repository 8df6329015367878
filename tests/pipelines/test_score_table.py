import numpy as np

from pipelines.score import ScoreSettings, score
from pipelines.score_table import tidy


def test_a_labelled_score_that_is_missing_everywhere_has_no_rows(verified, tmp_path):
    settings = ScoreSettings(channels=("z500",), families=("intervals",))
    found = score(verified.forecast, verified.truth, tmp_path, settings=settings).scores
    gone = found.assign(coverage=found.coverage * np.nan)
    names = set(tidy(found).score)
    assert {name for name in names if not name.startswith("coverage")} == set(tidy(gone).score)
    assert {"coverage_0.9", "rmse", "quantile_score_0.5"} <= names
