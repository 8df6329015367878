import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize("built", ["scoring/_loops.so", ""])
def test_what_was_compiled_and_deleted_is_compiled_again(tmp_path, built):
    shutil.copy(ROOT / "Makefile", tmp_path)
    sources = "pyproject.toml", "constraints.txt", "scoring/_loops.c", "forecast/_sfno.c"
    for name in (*sources, "forecast/_harmonics.h", *filter(None, [built])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    stamp = tmp_path / ".venv" / ".installed"
    stamp.parent.mkdir()
    stamp.write_text(built)

    def outdated() -> bool:
        command = ["make", "--question", ".venv/.installed"]
        return subprocess.run(command, cwd=tmp_path).returncode == 1

    assert not outdated()
    if built:
        (tmp_path / built).unlink()
        assert outdated()
