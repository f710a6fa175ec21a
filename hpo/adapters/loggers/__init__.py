"""Callbacks that log a study to W&B, MLflow or TensorBoard, by their own packages.

A package is imported when its callback is made, so `import hpo.adapters.loggers` needs none.
"""

from hpo.adapters.loggers.base import StudyLogger
from hpo.adapters.loggers.mlflow import MLflowLogger
from hpo.adapters.loggers.tensorboard import TensorBoardLogger
from hpo.adapters.loggers.wandb import WandbLogger

__all__ = ["MLflowLogger", "StudyLogger", "TensorBoardLogger", "WandbLogger"]
