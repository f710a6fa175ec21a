"""Longer studies, run from the root of a clone: `python -m examples.studies.demo`.

They are run as modules because some train the small models of `benchmarks.workloads`, which no
installed package contains.
"""
