"""What a training function sees, and real workloads to tune: a byte-level transformer, digits.

`context` and `checkpoints` serve any training function. Of the transformer, `corpus` holds the
bytes, `transformer` the model, `language_model` the training run and `accounting` the FLOPs it
consumes. `digits` holds a perceptron and a residual network on scikit-learn's images.
Modules are imported by name, so that nothing loads torch before it is needed.
"""
