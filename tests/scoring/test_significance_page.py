import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "significance.md"


def test_what_the_page_shows_runs():
    shown: dict = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(code, shown)
    assert shown["stands_out"].dims == ("latitude", "longitude")
    assert (shown["skill"].dates == 55).all()
