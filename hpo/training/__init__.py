"""Training functions: what they see, a PyTorch trainer, and real workloads to tune.

`context` and `checkpoints` serve any training function. `trainer` makes one from a model, its
data and a loss, with `data`, `devices`, `schedules`, `optimizers` and `accounting` below it;
`parametrization` says what changes with width and depth, and `coordinates` whether it does. Of the
workloads, `corpus` holds bytes, `transformer` the model and `language_model` its training run;
`digits` holds a perceptron and a residual network on scikit-learn's images.
Modules are imported by name, so that nothing loads torch before it is needed.
"""
