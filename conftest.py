"""Leave out of doctest collection the adapters whose library is not installed."""

from importlib.util import find_spec
from pathlib import Path

import pytest

_NEEDED = {
    "ray": "ray",
    "dask.py": "distributed",
    "hydra.py": "hydra",
    "hydra_plugin": "hydra",
    "accelerate.py": "accelerate",
    "lightning.py": "lightning",
    "transformers.py": "transformers",
    "ftpfn.py": "ifbo",
}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore `hpo/adapters/<name>` and `surrogates/interop/<name>` without their library."""
    if collection_path.parent.name not in ("adapters", "interop"):
        return None
    if collection_path.parent.parent.name not in ("hpo", "surrogates"):
        return None
    library = _NEEDED.get(collection_path.name)
    return True if library is not None and find_spec(library) is None else None
