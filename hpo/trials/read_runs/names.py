"""Well-known names of columns: what each is for, however another tool spells it.

A name such as `config.optimizer.learningRate` is spelled `config_optimizer_learning_rate`,
`optimizer_learning_rate` and `learning_rate`; the first spelling that is known counts. The first
part says what kind of column it is, where tools keep settings apart from results.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TypeVar

from hpo.space import Axis, Role

__all__ = [
    "AXES",
    "BETTER_LARGER",
    "COSTS",
    "FLAGS",
    "GENERIC",
    "LOSSES",
    "NOT_TUNED",
    "RUN_IDS",
    "SECONDS_NAMES",
    "SETTINGS",
    "STATES",
    "STEPS",
    "Namespace",
    "known_as",
    "namespace",
    "spellings",
]

T = TypeVar("T")

LOSSES = (
    "val_loss", "valid_loss", "validation_loss", "eval_loss", "dev_loss", "heldout_loss",
    "test_loss", "loss", "final_loss", "val_nll", "nll", "cross_entropy", "val_bpb", "bpb",
    "val_perplexity", "val_ppl", "perplexity", "ppl", "objective", "objective_value", "value",
    "val_error", "error_rate", "val_rmse", "rmse", "val_mse", "mse", "mae", "regret", "verlust",
    "train_loss", "training_loss",
)  # fmt: skip
BETTER_LARGER = (
    "val_accuracy", "val_acc", "validation_accuracy", "eval_accuracy", "test_accuracy", "test_acc",
    "accuracy", "acc", "top1", "top_1", "val_auc", "auc", "roc_auc", "val_f1", "f1", "score",
    "mean_test_score", "mean_reward", "episode_reward_mean", "reward", "return", "map", "bleu",
    "r2", "mean_accuracy",
)  # fmt: skip
COSTS = (
    "cost", "flops", "compute", "total_flops", "train_flops", "training_flops", "total_flos",
    "gpu_hours", "gpu_h", "price", "dollars", "usd", "energy_kwh", "c",
)  # fmt: skip
SECONDS_NAMES = (
    "seconds", "runtime", "time", "duration", "elapsed", "elapsed_time", "wall_clock", "wall_time",
    "walltime", "wallclock", "train_time", "training_time", "train_runtime", "time_total_s",
    "total_time", "time_s", "runtime_s", "duration_s", "train_seconds", "wall_seconds",
    "mean_fit_time", "dauer",
)  # fmt: skip
STATES = ("state", "status", "trial_state", "trial_status", "run_state", "run_status", "outcome")
FLAGS = {  # columns of yes and no, and what a yes means
    "diverged": ("diverged", "is_diverged", "has_diverged", "divergence"),
    "error": ("failed", "crashed", "is_failed", "error", "has_failed"),
    "oom": ("oom", "is_oom", "out_of_memory"),
}
RUN_IDS = (
    "run_id",
    "trial_id",
    "run",
    "run_name",
    "name",
    "id",
    "trial",
    "trial_name",
    "uuid",
    "arm_name",
    "trial_index",
)
STEPS = (
    "step", "_step", "global_step", "epoch", "iteration", "iter", "training_iteration", "steps",
    "train_step", "trainer_global_step",
)  # fmt: skip
NOT_TUNED = (
    *RUN_IDS, *STEPS, "number", "index", "seed", "random_seed", "rng_seed", "data_seed",
    "model_seed", "random_state", "created", "created_at", "timestamp", "date", "datetime_start",
    "datetime_complete", "start_time", "end_time", "started", "ended", "heartbeat_at", "user",
    "username", "notes", "note", "comment", "comments", "tags", "group", "job_type", "host",
    "hostname", "pid", "node_ip", "git_commit", "commit", "url", "path", "dir", "logdir", "out_dir",
    "output_dir", "checkpoint", "checkpoint_path", "run_dir", "save_dir", "logging_dir", "device",
    "num_workers", "workers", "log_interval", "eval_interval", "wandb_project", "project",
    "experiment_id", "artifact_uri", "experiment_tag", "exp_name", "experiment", "experiment_name",
    "sweep", "sweep_id", "worker", "gpu", "gpus", "rank", "done", "iterations_since_restore",
    "time_this_iter_s", "time_since_restore", "timesteps_total", "episodes_total", "version",
    "user_id", "hidden_state", "logging_steps", "eval_steps", "save_steps", "run_uuid",
    "cause", "trained_level", "predicted_loss", "predicted_loss_low", "predicted_loss_high",
    "predicted_cost", "predicted_cost_low", "predicted_cost_high", "predicted_success", "reason",
    "attempts", "failure", "traceback",
)  # fmt: skip

SETTINGS: Mapping[Role, tuple[str, ...]] = {
    Role.LR: (
        "lr", "learning_rate", "max_lr", "peak_lr", "base_lr", "eta", "learningrate", "lernrate",
        "init_lr", "initial_lr", "lr_max", "lr_peak", "peak_learning_rate", "max_learning_rate",
        "step_size",
    ),
    Role.BATCH: (
        "batch", "batch_size", "bs", "bsz", "global_batch_size", "batchsize", "total_batch_size",
        "train_batch_size", "per_device_train_batch_size", "batch_tokens", "tokens_per_batch",
        "mini_batch_size", "minibatch_size", "batchgrosse", "batch_grosse",
    ),
    Role.WEIGHT_DECAY: ("wd", "weight_decay", "decay", "weightdecay", "l2", "l2_reg"),
    Role.BETA1: ("beta1", "beta_1", "adam_beta1", "b1"),
    Role.BETA2: ("beta2", "beta_2", "adam_beta2", "b2"),
    Role.EPSILON: ("eps", "epsilon", "adam_eps", "adam_epsilon"),
    Role.WARMUP: (
        "warmup", "warmup_steps", "warmup_tokens", "warmup_ratio", "num_warmup_steps",
        "warmup_fraction", "warmup_epochs", "warmup_iters",
    ),
    Role.DROPOUT: ("dropout", "dropout_rate", "p_dropout", "drop_rate"),
    Role.INIT: ("init", "init_std", "init_scale", "initializer_range"),
    Role.OTHER: (
        "momentum", "grad_clip", "clip_grad", "gradient_clip", "gradient_clip_val", "max_grad_norm",
        "clip_grad_norm", "label_smoothing", "min_lr_ratio", "min_lr", "muon_to_adam_lr", "z_loss",
        "adam_lr", "muon_lr", "optimizer", "optim", "optimiser", "optimizer_name", "optimizer_type",
        "optim_name", "lr_schedule", "lr_scheduler",
        "lr_scheduler_type", "schedule", "scheduler", "activation", "temperature",
    ),
}  # fmt: skip
AXES: Mapping[Axis, tuple[str, ...]] = {
    Axis.PARAMS: (
        "params", "n", "n_params", "num_params", "parameters", "model_size", "size", "nparams",
        "num_parameters", "n_parameters", "param_count", "params_count", "total_params",
        "total_parameters", "non_embedding_params", "non_embedding_parameters", "parameter_count",
        "trainable_params", "parameter", "model_params",
    ),
    Axis.TOKENS: (
        "tokens", "d", "n_tokens", "num_tokens", "train_tokens", "data", "total_tokens", "ntokens",
        "tokens_seen", "training_tokens", "num_train_tokens", "dataset_tokens", "token_budget",
        "tokens_trained", "token_count", "max_tokens",
    ),
    Axis.WIDTH: (
        "width", "hidden", "hidden_size", "d_model", "n_embd", "dim", "hidden_dim", "model_dim",
        "embed_dim", "n_embed", "emb_dim", "embedding_dim",
    ),
    Axis.DEPTH: (
        "depth", "layers", "n_layers", "num_layers", "n_layer", "nlayers", "num_hidden_layers",
        "n_blocks", "num_blocks",
    ),
}  # fmt: skip
#: Names of sizes that may mean something else, too: the values have to look like sizes.
GENERIC = ("n", "d", "size", "data", "hidden", "dim", "parameters", "parameter", "depth")

_SETTING_PARTS = (
    "config", "configs", "params", "param", "hparams", "hyperparameters", "hyperparams", "hp",
    "parameters", "args", "cfg", "train_config", "training_config", "general", "settings",
    "search_space", "hparam", "training_args",
)  # fmt: skip
_RESULT_PARTS = ("metrics", "metric", "summary", "results", "result", "user_attrs", "scores")
_META_PARTS = ("tags", "system", "system_attrs", "sys", "info", "meta", "monitoring", "wandb")
_NEUTRAL = ("metrics", "metric", "summary", "results", "result", "final", "best", "last", "min")
_MORE = re.compile(r"_(min|max|best|final|last|mean|epoch|nats)$|^(best|final|last|min|avg)_")
_OPTUNA_PREFIX = re.compile(r"^(params?|user_attrs|system_attrs|config|hparams?|hp)_(?=.)")


class Namespace(Enum):
    """Kind of column that the first part of its name says.

    Example:
        >>> [namespace(name).name for name in ("config.lr", "params_lr", "metrics.loss", "lr")]
        ['SETTING', 'SETTING', 'RESULT', 'NONE']
    """

    SETTING = "setting"
    RESULT = "result"
    META = "meta"
    NONE = "none"


def namespace(name: str) -> Namespace:
    """Return the kind of column that a name's first part says."""
    first, *rest = _parts(name)
    if not rest:
        return Namespace.NONE
    for kind, known in (
        (Namespace.SETTING, _SETTING_PARTS),
        (Namespace.RESULT, _RESULT_PARTS),
        (Namespace.META, _META_PARTS),
    ):
        if first in known:
            return kind
    return Namespace.NONE


def spellings(name: str) -> tuple[str, ...]:
    """Return a name as well-known names are written, whole and without its first parts.

    Example:
        >>> spellings("Learning Rate"), spellings("config.optimizer.lr")
        (('learning_rate',), ('config_optimizer_lr', 'optimizer_lr', 'lr'))
        >>> spellings("params_lr"), spellings("batchSize")
        (('params_lr', 'lr'), ('batch_size',))
    """
    parts = _parts(name)
    return tuple("_".join(parts[k:]) for k in range(len(parts)))


def known_as(name: str, known: Mapping[T, Sequence[str]]) -> tuple[T, int] | None:
    """Return what a name is well known for, and its place among such names; None if it is not.

    Args:
        name: Name of a column.
        known: Well-known names by what they stand for.

    Example:
        >>> known_as("train_config.lr", SETTINGS), known_as("speed", SETTINGS)
        ((<Role.LR: 'lr'>, 0), None)
    """
    for spelled in spellings(name):
        for meaning, names in known.items():
            if spelled in names:
                return meaning, names.index(spelled)
    return None


def place_of_result(name: str, known: Sequence[str]) -> float | None:
    """Return the place of a result's name among `known`, None if it is not there.

    The first parts of a result say whose it is: `train/loss` is not `loss`.

    Example:
        >>> place_of_result("val/loss", LOSSES), place_of_result("metrics.loss", ["loss"])
        (0, 0)
        >>> place_of_result("train/loss", ["loss"]) is None
        True
        >>> place_of_result("val/loss.min", ["val_loss"])
        0.5
    """
    parts = _parts(name)
    while len(parts) > 1 and parts[0] in (*_NEUTRAL, "user_attrs", "scores"):
        parts = parts[1:]
    spelled = "_".join(parts)
    if spelled in known:
        return known.index(spelled)
    less = _MORE.sub("", spelled)
    return known.index(less) + 0.5 if less != spelled and less in known else None


def _parts(name: str) -> list[str]:
    name = _OPTUNA_PREFIX.sub(r"\1.", name)
    parts = [_plain(part) for part in re.split(r"[./:|\\]+", name)]
    return [part for part in parts if part] or [""]


def _plain(name: str) -> str:
    """Write a name in lower case with underscores: "batchSize" becomes batch_size."""
    name = unicodedata.normalize("NFKD", name.replace("\u00df", "ss"))
    name = "".join(letter for letter in name if not unicodedata.combining(letter))
    name = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])|(?<=[a-z]{2})(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
