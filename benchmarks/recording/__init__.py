"""The curve bank's making: really trains small workloads and writes down every level.

    python -m benchmarks record --out runs/curve_bank

`workloads` says what is trained, over which settings and at which sizes; `transformer` is one
training loop (that of the digits is `hpo.training.digits`); `record` runs them one by one, each
into a file of its own, and packs the files into the table that `benchmarks.tasks.curve_bank` reads.
"""

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """The command `record`; see `benchmarks.recording.record`. Returns the exit status."""
    from benchmarks.recording import record

    return record.main(argv)
