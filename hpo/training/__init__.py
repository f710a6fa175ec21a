"""PyTorch training functions for `hpo.optimize`.

Modules are imported by name, so that nothing loads torch before it is needed:

`trainer`           `TorchTrainer`: a training function from a model, its data and a loss
`training_run`      `TrainingRun`: one training in progress, its loop and its checkpoints
`range_test`        learning-rate range test, which sets the search interval of a rate
`data`              training examples by number, so that an interrupted run resumes exactly
`schedules`         learning-rate schedules
`optimizers`        AdamW, SGD, Lion and Muon as plain settings
`parametrization`   muP and others: how rates and initial weights follow width and depth
`coordinate_check`  test of whether a model follows such a parametrization
`transformer`       byte-level transformer, the built-in model of the coordinate check
`accounting`        parameters, tokens, FLOPs, seconds, memory and energy of a run
`metrics`           training losses, gradient norms and activations between two reports
`devices`           choice of the device, random states, memory
"""
