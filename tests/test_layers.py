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

# Longest matching prefix wins. Decimals order modules of one rank.
RANKS = {
    "surrogates": 0,
    "hpo": 0,  # the package itself: only names, loaded lazily
    "hpo.errors": 0,
    "hpo.space": 0,
    "hpo.observations": 1,
    "hpo.encoding": 2,
    "hpo.budget": 2,
    "hpo.pareto": 2,
    "hpo.priors": 2,
    "hpo.acquisition": 3,
    "hpo.schedulers": 3,
    "hpo.initial": 3,
    "hpo.coefficients": 3,
    "hpo.cost_law": 3.1,
    "hpo.law": 3.2,
    "hpo.stages": 3,
    "hpo.curve_forecast": 4,
    "hpo.maximize": 4,
    "hpo.models": 4,
    "hpo.members": 4.1,
    "hpo.axes": 4.2,
    "hpo.survival": 4.1,
    "hpo.prediction": 4.2,
    "hpo.instability": 4.2,
    "hpo.result": 5,
    "hpo.search": 5,
    "hpo.transfer_check": 5.1,
    "hpo.sweep": 5.2,
    "hpo.optimizer": 6,
    "hpo.staged": 6.1,
    "hpo.callbacks": 6,
    "hpo.training": 6,
    "hpo.leases": 7,
    "hpo.runners": 7,
    "hpo.journal": 7.1,
    "hpo.progress": 7.1,
    "hpo.continuation": 7.1,
    "hpo.interrupts": 7.1,
    "hpo.driver": 7.2,
    "hpo.study": 7.3,
    "hpo.adapters": 8,
    "hpo.plots": 8,
    "hpo.report": 8.1,
    "hpo.cli": 8,
    "benchmarks": 9,
    "examples": 10,
}
# Inside `surrogates`, each may import what stands before it.
SURROGATES = (
    ("data",),
    ("numerics", "base"),
    ("kernels", "transforms"),
    ("gp",),
    ("kriging", "chinchilla"),
    ("law_fit", "linearised"),
    ("scaling", "cost", "success", "curves", "calibration"),
    ("quantile",),
    ("fidelity",),
    ("botorch", "ftpfn"),
)
# `Result.report` and the plot methods load what people look at when they are called.
EXCEPTIONS = {
    ("hpo.result", "hpo.report"),
    ("hpo.result", "hpo.plots"),
    ("hpo.transfer_check", "hpo.plots"),
    ("hpo.instability", "hpo.plots"),
    ("hpo.training.coordinates", "hpo.plots"),
}
HEAVY = ("matplotlib", "optuna", "pandas", "rich", "scipy", "sklearn", "torch")
SECONDS = 0.3


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


def rank(module: str) -> float:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in RANKS and (length > 1 or prefix != "hpo" or len(parts) == 1):
            return RANKS[prefix]
    raise AssertionError(f"{module} has no rank; give it one in the layer table")


def same_family(importer: str, imported: str) -> bool:
    """Whether both lie in one package below `hpo`, or in one top package other than `hpo`."""
    depth = 2 if importer.startswith("hpo.") else 1
    return importer.split(".")[:depth] == imported.split(".")[:depth]


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_from_smaller_ranks(module: str) -> None:
    for imported in imports(module):
        allowed = (
            same_family(module, imported)
            or rank(imported) < rank(module)
            or (rank(imported) == rank(module) == 0 and module.startswith("hpo"))
            or (module, imported) in EXCEPTIONS
        )
        assert allowed, f"{module} (rank {rank(module)}) imports {imported} (rank {rank(imported)})"


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
    timed = "import time; t = time.perf_counter(); import hpo; print(time.perf_counter() - t)"
    assert min(float(run(timed)) for _ in range(5)) < SECONDS


def test_every_public_name_exists() -> None:
    assert run("import hpo; [getattr(hpo, name) for name in hpo.__all__]; print('ok')") == "ok"


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    asked = "import hpo\ntry: hpo.minimize\nexcept AttributeError as error: print(error)"
    assert run(asked) == "module 'hpo' has no attribute 'minimize'"


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
