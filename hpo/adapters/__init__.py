"""scaletune inside other tools: Optuna, Ray, Dask, Hydra, Lightning, Transformers, FT-PFN."""
