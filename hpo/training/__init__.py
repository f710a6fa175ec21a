"""What a training function sees, and a real workload to tune: a byte-level transformer.

`context` and `checkpoints` serve any training function. Of the workload, `corpus` holds the bytes,
`transformer` the model, `language_model` the training run and `accounting` the FLOPs it consumes.
Modules are imported by name, so that nothing loads torch before it is needed.
"""
