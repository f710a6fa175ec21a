"""Read earlier runs, made elsewhere, from any source.

Two steps of three modules each: a source becomes a table (`sources`, `text_files`, `studies`,
`tables`), and the table's columns and rows become observations of a space (`names`, `cells`,
`outcomes`, `choose`, `runs`).
"""

from hpo.trials.read_runs.choose import ColumnScale
from hpo.trials.read_runs.errors import RunFileError
from hpo.trials.read_runs.guesses import Guess, Guesses, Use
from hpo.trials.read_runs.runs import Runs, read_runs, run_keys

__all__ = [
    "ColumnScale",
    "Guess",
    "Guesses",
    "RunFileError",
    "Runs",
    "Use",
    "read_runs",
    "run_keys",
]
