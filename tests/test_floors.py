"""The floors of the house: a module imports from floors below its own, and never in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = ("data", "scoring", "forecast", "perturb", "pipelines")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for floor in FLOORS
    for path in (ROOT / floor).rglob("*.py")
}


def imported(path):
    """Names of the modules of ours that a file imports, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; name the floor"
            members = {f"{node.module}.{name.name}" for name in node.names}
            found |= members & MODULES.keys() or {node.module}
    return found & MODULES.keys()


def test_no_module_imports_from_a_floor_above():
    height = {floor: index for index, floor in enumerate(FLOORS)}
    upward = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        for other in imported(path)
        if height[other.split(".")[0]] > height[name.split(".")[0]]
    ]
    assert not upward


def test_no_modules_import_each_other_in_a_circle():
    TopologicalSorter({name: imported(path) for name, path in MODULES.items()}).prepare()
