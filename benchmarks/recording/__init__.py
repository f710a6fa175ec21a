"""The making of the curve bank: train small workloads and write down every level.

    python -m benchmarks record --work runs/curve_bank

`workloads` says what is trained, over which settings and at which sizes; `transformer` is one
training loop (that of the digits is `benchmarks.workloads.digits`); `record` runs them one by one,
each into a file of its own, and packs the files into the table that `benchmarks.tasks.curve_bank`
reads.
"""
