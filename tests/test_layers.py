"""The layer table: each module imports only from smaller ranks, and `import hpo` stays light.

Read from the syntax trees, so imports inside functions count as well. Imports under
`if TYPE_CHECKING:` are for the type checker alone and do not count.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# One whole number a room: a module or folder directly under `hpo`, or a top folder.
RANKS = {
    "surrogates": 0,
    "hpo.errors": 1,
    "hpo.drawing": 1,
    "hpo.space": 2,
    "hpo.trials": 3,
    "hpo.acquisition": 4,
    "hpo.scaling": 4,
    "hpo.schedulers": 4,
    "hpo.models": 5,
    "hpo.optimizer": 6,
    "hpo.study": 7,
    "hpo.diagnostics": 8,
    "hpo.training": 8,
    "hpo.adapters": 9,
    "hpo.cli": 9,
    "hpo.__main__": 10,
    "hpo": 10,  # the package itself: only names, loaded when they are used
    "benchmarks": 11,
    "examples": 12,
}
LARGEST_FOLDER = 12  # modules, `__init__` not counted
MOST_ROOMS = 15
# Inside `surrogates`, each may import what stands before it.
SURROGATES = (
    ("data",),
    ("numerics", "base"),
    ("kernels", "transforms"),
    ("gp",),
    ("basis_gp", "scaling_law", "scaling_law.parametric_loss"),
    ("scaling_law.prior", "scaling_law.linearized", "scaling_law.coefficients"),
    ("scaling_law.map_fit", "scaling_law.mixture", "scaling_law.errors"),
    ("scaling_law.processes", "scaling_law.rolling_origin"),
    ("scaling_law.model", "cost", "feasibility", "learning_curves", "conformal"),
    ("quantile_forest",),
    ("interop", "interop.botorch", "interop.ftpfn"),
)
HEAVY = ("matplotlib", "optuna", "pandas", "rich", "scipy", "sklearn", "torch")
SECONDS = 0.1


@cache
def modules() -> list[str]:
    found = []
    for package in ("surrogates", "hpo", "benchmarks", "examples"):
        for folder, below, files in os.walk(ROOT / package):
            below[:] = [name for name in below if not name.startswith(".")]  # peers' environments
            for file in files:
                if file.endswith(".py"):
                    parts = (Path(folder) / file).relative_to(ROOT).with_suffix("").parts
                    found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(found)


def path_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def statements(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not is_for_types_only(child):
            yield child
            yield from statements(child)


@cache
def imports(module: str) -> set[str]:
    """Our own modules that `module` imports, anywhere in its text."""
    known = set(modules())
    found = set()
    for node in statements(ast.parse(path_of(module).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} line {node.lineno}: write the full module name"
            assert node.module is not None
            # `from hpo.training import context` names a module, `from hpo import Float` does not.
            found |= {
                name if (name := f"{node.module}.{alias.name}") in known else node.module
                for alias in node.names
            }
    return {name for name in found if name.split(".")[0] in {m.split(".")[0] for m in known}}


def room(module: str) -> str:
    """The module or folder directly under `hpo`, or the top folder, that `module` lies in."""
    parts = module.split(".")
    return ".".join(parts[:2] if parts[0] == "hpo" else parts[:1])


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_from_rooms_of_smaller_rank(module: str) -> None:
    assert room(module) in RANKS, f"{room(module)} has no rank; give it one in the layer table"
    for imported in imports(module):
        if imported == "hpo":  # only what `hpo` itself takes from below, which has no circle
            assert room(module).split(".")[0] != "hpo", f"{module} imports the package itself"
        elif room(imported) != room(module):
            assert RANKS[room(imported)] < RANKS[room(module)], f"{module} imports {imported}"


def test_modules_of_one_room_do_not_import_each_other_in_circles() -> None:
    known = set(modules())
    below = {module: imports(module) & known - {module} for module in known}
    while ready := [module for module, needs in below.items() if not needs & below.keys()]:
        for module in ready:
            del below[module]
    assert not below, f"these import each other: {sorted(below)}"


def test_the_house_has_few_rooms_and_no_folder_is_crowded() -> None:
    rooms = {room(module) for module in modules() if module.startswith("hpo.")}
    assert len(rooms) <= MOST_ROOMS, sorted(rooms)
    for package in ("hpo", "surrogates"):
        for folder in {
            path_of(module).parent for module in modules() if module.startswith(package)
        }:
            crowd = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
            assert len(crowd) <= LARGEST_FOLDER, f"{folder} has {len(crowd)} modules"


@pytest.mark.parametrize("module", [m for m in modules() if m.startswith("surrogates")])
def test_surrogates_never_import_hpo(module: str) -> None:
    assert not [name for name in imports(module) if not name.startswith("surrogates")]


@pytest.mark.parametrize("module", [m for m in modules() if m.startswith("surrogates.")])
def test_surrogates_import_in_their_order(module: str) -> None:
    order = {f"surrogates.{name}": i for i, names in enumerate(SURROGATES) for name in names}
    assert module in order, f"{module} has no place in the order of the surrogates"
    for imported in imports(module):
        assert order[imported] < order[module], f"{module} imports {imported}"


@pytest.mark.parametrize("module", modules())
def test_nothing_is_called_utils_or_common(module: str) -> None:
    assert not {"utils", "util", "common", "helpers", "misc"} & set(module.split("."))


@pytest.mark.parametrize("module", [m for m in modules() if m.startswith("benchmarks")])
def test_benchmarks_use_only_public_names(module: str) -> None:
    for node in statements(ast.parse(path_of(module).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hpo":
            assert not [alias.name for alias in node.names if alias.name.startswith("_")]


def test_importing_hpo_loads_nothing_heavy() -> None:
    loaded = f"import sys, hpo; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert run(loaded) == "[]"


def test_importing_hpo_is_quick() -> None:
    """It takes a tenth of a second or, on a slow machine, as long as it takes to import NumPy."""
    timed = (
        "import time; t = time.perf_counter(); import numpy; numpy = time.perf_counter() - t;"
        "import hpo; print(numpy, time.perf_counter() - t)"
    )
    times = [tuple(map(float, run(timed).split())) for _ in range(5)]
    assert any(total < SECONDS or total < 2.0 * numpy for numpy, total in times), times


def test_every_public_name_exists() -> None:
    assert run("import hpo; [getattr(hpo, name) for name in hpo.__all__]; print('ok')") == "ok"


def test_the_three_lists_of_public_names_agree() -> None:
    """What type checkers see, what `__all__` lists and what is loaded lazily are one list."""
    import hpo

    tree = ast.parse(path_of("hpo").read_text())
    typed = [node for node in tree.body if is_for_types_only(node)]
    lazy = {
        alias.name: node.module
        for block in typed
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    eager = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hpo.")
        for alias in node.names
    }
    assert lazy == hpo._LAZY
    assert sorted(hpo.__all__) == sorted({*lazy, *eager})


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    asked = "import hpo\ntry: hpo.minimize\nexcept AttributeError as error: print(error)"
    assert run(asked) == "module 'hpo' has no attribute 'minimize'"


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
