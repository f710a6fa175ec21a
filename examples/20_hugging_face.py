"""Hugging Face: each evaluation of a `Trainer` is saved and reported to the study.

    python examples/20_hugging_face.py

Install Transformers with `pip install '.[transformers]'` in a clone.
"""

from typing import Any

import torch
import transformers

from hpo import ASHA, Budget, Context, Fidelity, Float, SearchSpace, optimize
from hpo.adapters.transformers import TrialCallback, last_checkpoint

SPACE = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 3)})
BYTES = torch.tensor(list(b"the quick brown fox jumps over the lazy dog. " * 24)[: 32 * 32])
TEXT = [{"input_ids": row, "labels": row} for row in BYTES.reshape(32, 32)]


def train(config: dict[str, Any], ctx: Context) -> float:
    """Train a tiny GPT-2 up to the level that the scheduler asks for."""
    transformers.set_seed(ctx.seed)
    shape = transformers.GPT2Config(vocab_size=256, n_positions=32, n_embd=32, n_layer=1, n_head=2)
    arguments = transformers.TrainingArguments(
        output_dir=str(ctx.checkpoint_dir),
        learning_rate=config["lr"],
        lr_scheduler_type="constant",  # a run that may be continued does not know its end
        num_train_epochs=ctx.fidelity,
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = transformers.Trainer(
        transformers.GPT2LMHeadModel(shape),
        arguments,
        train_dataset=TEXT[:24],
        eval_dataset=TEXT[24:],
        callbacks=[TrialCallback(ctx)],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(ctx))
    return float(trainer.evaluate()["eval_loss"])


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    result = optimize(train, SPACE, budget=Budget(trials=6), scheduler=ASHA())
    best = result.best_observed
    print(f"best of 6 configs: lr {best.config['lr']:.4f}, validation loss {best.loss:.3f}")
