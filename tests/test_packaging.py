"""What an installation contains."""

import tomllib
from pathlib import Path

import pytest

setuptools = pytest.importorskip("setuptools", reason="pip install setuptools to run this")

ROOT = Path(__file__).parent.parent


def test_the_wheel_ships_hpo_surrogates_and_the_hydra_plugin_only() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    find = settings["tool"]["setuptools"]["packages"]["find"]
    found = {
        place: setuptools.find_namespace_packages(
            str(ROOT / place), include=find["include"], exclude=find["exclude"]
        )
        for place in find["where"]
    }
    here, plugin = (found[place] for place in (".", "hpo/adapters/hydra_plugin"))
    # Listed beside what it contains: without it, an editable install has no folder of that name.
    assert sorted(plugin) == ["hydra_plugins", "hydra_plugins.scaletune_sweeper"]
    assert {name.split(".")[0] for name in here} == {"hpo", "surrogates"}
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in ("hpo", "surrogates")
        for path in (ROOT / package).rglob("*.py")
        if "hydra_plugin" not in path.parts
    }
    assert set(here) >= folders
