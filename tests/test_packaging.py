"""What an installation contains."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
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


@pytest.mark.slow
def test_wheel_and_source_distribution_hold_what_they_should(tmp_path: Path) -> None:
    pytest.importorskip("build", reason="pip install build to run this")
    arguments = ["--no-isolation", "--outdir", str(tmp_path / "dist"), str(copied(tmp_path))]
    subprocess.run([sys.executable, "-m", "build", *arguments], check=True, capture_output=True)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    [sdist] = (tmp_path / "dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    tops = {name.split("/")[0].split("-")[0] for name in names}
    assert tops == {"hpo", "surrogates", "hydra_plugins", "scaletune"}
    packaged = {n for n in names if n.endswith(".py") and not n.startswith("hydra_plugins")}
    ours = {
        path.relative_to(ROOT).as_posix()
        for package in ("hpo", "surrogates")
        for path in (ROOT / package).rglob("*.py")
        if "hydra_plugin" not in path.parts
    }
    assert packaged == ours
    assert {"hpo/py.typed", "surrogates/py.typed", "hpo/drawing/report.html.j2"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    with tarfile.open(sdist) as file:
        source = {name.partition("/")[2] for name in file.getnames()}
    expected = {"LICENSE", "CHANGELOG.md", "conftest.py", "docs/engine.md", "tests/conftest.py"}
    assert expected | ours <= source
    assert not [name for name in source if "__pycache__" in name or ".envs" in name]


def copied(folder: Path) -> Path:
    """A copy of the project, so that a build leaves nothing here."""
    skipped = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs")
    return Path(shutil.copytree(ROOT, folder / "copy", ignore=skipped))
