import re
from pathlib import Path

import numpy as np
import properscoring
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "crps-five-ways.md"


@pytest.fixture(scope="module")
def shown() -> dict:
    """What the code on the page leaves behind."""
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(code, names)
    return names


@pytest.mark.parametrize(
    "way", ["one_sort", "definition", "all_pairs", "from_quantiles", "from_events"]
)
def test_each_way_gives_the_crps_of_properscoring(shown, way):
    expected = properscoring.crps_ensemble(shown["truth"].values, shown["members"].values.T)
    found = np.asarray(shown[way])
    assert found.size in (8, 1000)
    np.testing.assert_allclose(found, expected[: found.size], rtol=1e-10)
