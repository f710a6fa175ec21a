"""Examples, one idea a script, and longer studies under `examples.studies`."""
