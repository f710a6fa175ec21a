"""Read earlier runs, made elsewhere, from any source.

Two steps of three modules each: a source becomes a table (`sources`, `text_files`, `studies`,
`tables`), and the table's columns and rows become observations of a space (`names`, `cells`,
`outcomes`, `choose`, `runs`). `history` fits them to a search that goes on from them.
"""

from hpo.trials.read_runs.choose import ColumnScale
from hpo.trials.read_runs.errors import RunFileError
from hpo.trials.read_runs.guesses import Guess, Guesses, Use
from hpo.trials.read_runs.history import History, earlier_runs
from hpo.trials.read_runs.runs import Runs, read_runs, run_keys

__all__ = [
    "ColumnScale",
    "Guess",
    "Guesses",
    "History",
    "RunFileError",
    "Runs",
    "Use",
    "earlier_runs",
    "read_runs",
    "run_keys",
]
