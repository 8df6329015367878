import numpy as np
import pandas as pd

from pipelines.score import ScoreSettings, score
from pipelines.score_table import tidy, write_table


def test_a_labelled_score_that_is_missing_everywhere_has_no_rows(verified, tmp_path):
    settings = ScoreSettings(channels=("z500",), families=("intervals",))
    found = score(verified.forecast, verified.truth, tmp_path, settings=settings).scores
    gone = found.assign(coverage=found.coverage * np.nan)
    names = set(tidy(found).score)
    assert {name for name in names if not name.startswith("coverage")} == set(tidy(gone).score)
    assert {"coverage_0.9", "rmse", "quantile_score_0.5"} <= names


def test_a_table_for_a_spreadsheet_has_every_number_and_no_curve(verified, tmp_path):
    found = score(verified.forecast, verified.truth, tmp_path, verified.climatology).scores
    written = pd.read_csv(tmp_path / "scores.csv")
    assert not written.score.str.startswith("rank_histogram").any()
    single = [array for name, array in found.items() if name not in ("cases", "rank_histogram")]
    assert len(written) == sum(int(array.notnull().sum()) for array in single)
    np.testing.assert_allclose(written.value, tidy(found).value, rtol=1e-7)
    write_table(found.drop_vars("rank_histogram"), tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "scores.csv").read_bytes()
    assert max(map(len, written.value.astype(str))) <= 14
