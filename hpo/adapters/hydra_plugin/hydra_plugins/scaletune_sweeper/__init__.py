"""The Hydra sweeper plugin `scaletune`."""
