"""A study from what its user says to its result: driver, storage, runners, checkpoints."""
