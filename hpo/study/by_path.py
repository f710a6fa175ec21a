"""Objects named as `package.module:name`, as a command line names them."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from hpo.space.arguments import Text
from hpo.study.runners import traceback_text
from hpo.trials.failures import last_line, where_raised

__all__ = ["found_by_path", "is_module_here"]


def found_by_path(path: str, said: str, what: str = "function") -> Any:
    """Return the object that a path names, also from a module in the working directory.

    Args:
        path: Path of the object, as `package.module:name`.
        said: What the path is, for the message.
        what: What it must name, for the message.

    Raises:
        ValueError: If there is no such object, or its module cannot be imported.

    Example:
        >>> found_by_path("math:sqrt", "FUNCTION")(9.0)
        3.0
        >>> found_by_path("math:root", "FUNCTION")
        Traceback (most recent call last):
        ValueError: FUNCTION must name package.module:function, got 'math:root', but math has \
no 'root'; correct the name
    """
    path = Text(way_out=f"write package.module:{what}")(path, said)
    module, colon, name = path.partition(":")
    if not (colon and module and name):
        raise ValueError(
            f"{said} must name package.module:{what}, got {path!r}; for {what} `train` of train.py"
            " write train:train"
        )
    _look_here()
    wrong = f"{said} must name package.module:{what}, got {path!r}"
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{wrong}: {_told(error, module)}") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{wrong}, but {module} has no {name!r}; correct the name")
        found = getattr(found, part)
    return found


def is_module_here(path: str) -> bool:
    """Return whether a path's module or package lies in the working directory; it is not imported.

    Args:
        path: Path of an object, as `package.module:name`.

    Example:
        >>> is_module_here("os:system")
        False
    """
    _look_here()
    top = path.partition(":")[0].partition(".")[0]
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if found is None:
        return False
    files = [*(found.submodule_search_locations or ())]
    if found.has_location and found.origin is not None:  # else it is built in
        files.append(found.origin)
    return files != [] and Path(files[0]).resolve().parent == Path.cwd().resolve()


def _look_here() -> None:
    """Let modules of the working directory be imported, as `python -m` does."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


def _told(error: BaseException, module: str) -> str:
    """What went wrong while a module was imported, and the way out."""
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        return f"there is no module {error.name!r}; change to the folder that holds it"
    text = traceback_text(error)
    place = where_raised(text)
    return f"{last_line(text)}; importing it raised {place or 'this'}, correct that"
