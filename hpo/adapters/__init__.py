"""Guests in other tools: Optuna, Ray, Dask, Hydra, Transformers, Lightning; each in its module."""
