"""The flags of ``rnem-world train`` that set a single value of a run's configuration."""

from __future__ import annotations

from rnem_world.cli.options import Flag, comma_separated


def _step_weights(text: str) -> str | list[float]:
    if text in ("all", "last"):
        return text
    weights: list[float] = comma_separated(float)(text)
    return weights


_step_weights.__name__ = "all|last|list"

# These may change when a run is resumed; everything else is part of what the run is.
RESUMABLE = [
    Flag("--epochs", "training.epochs", int, "Largest number of passes over the training split. [500]"),
    Flag(
        "--patience",
        "training.patience",
        int,
        "Epochs without a better validation loss before it stops. [10]",
    ),
    Flag("--max-updates", "training.max_updates", int, "Stop after so many updates in all."),
    Flag("--max-minutes", "training.max_minutes", float, "Stop after so many minutes of this sitting."),
    Flag("--checkpoint-minutes", "training.checkpoint_minutes", float, "Minutes between checkpoints. [5]"),
    Flag(
        "--keep-checkpoints",
        "training.keep_checkpoints",
        int,
        "Latest checkpoints to keep beside the best. [2]",
    ),
    Flag("--save-epochs", "training.save_epochs", comma_separated(int), "Epochs to keep. [1,5,10,20,50,100]"),
    Flag("--score-every", "training.score_every", int, "Updates between grouping scores. [20]"),
    Flag("--memory-gigabytes", "training.memory_gigabytes", float, "Keep a split in memory up to this. [4]"),
    Flag("--accumulate", "training.accumulate", int, "Micro-batches of a batch, to save memory. [1]"),
    Flag("--precision", "training.execution.precision", str, "Of products: float32 or bf16. [float32]"),
    Flag("--compile", "training.execution.compile", bool, "Compile the model's layers first. [no]"),
    Flag("--learning-rate", "training.optimizer.learning_rate", float, "Step size. [0.001]"),
    Flag(
        "--learning-rate-schedule",
        "training.optimizer.schedule",
        str,
        "How the learning rate falls: constant, cosine or linear. [constant]",
    ),
    Flag(
        "--schedule-updates",
        "training.optimizer.schedule_updates",
        int,
        "Updates, from the run's first, at whose end it has fallen.",
    ),
    Flag(
        "--schedule-after", "training.optimizer.schedule_after", int, "Updates before it begins to fall. [0]"
    ),
    Flag(
        "--final-learning-rate",
        "training.optimizer.final_learning_rate",
        float,
        "Where it falls to. [1 % of --learning-rate]",
    ),
    Flag(
        "--warm-up-updates",
        "training.optimizer.warm_up_updates",
        int,
        "Updates in which it first rises. [0]",
    ),
    Flag("--clip-norm", "training.optimizer.clip_norm", float, "Largest norm of a gradient. [none]"),
    Flag("--clip-by", "training.optimizer.clip_by", str, "Clip each 'parameter' or 'global'. [parameter]"),
    Flag(
        "--clip-factor", "training.optimizer.clip_factor", float, "Largest multiple of the usual norm. [none]"
    ),
]
FIXED = [
    Flag("--hidden-size", "model.hidden_size", int, "Width of a slot's state. [250]"),
    Flag(
        "--initial-prediction", "model.initial_prediction", float, "Slots' mean before the first frame. [0]"
    ),
    Flag("--steps", "training.sequence_steps", int, "Predictions in a sequence. [30]"),
    Flag("--chunk-steps", "training.chunk_steps", int, "Steps of an update, a divisor of --steps. [all]"),
    Flag(
        "--step-weights", "training.step_weights", _step_weights, "Weight of each step: all, last or a list."
    ),
    Flag("--inter-weight", "training.loss.inter_weight", float, "Weight of the inter-slot loss. [1]"),
    Flag("--pixel-prior", "training.loss.pixel_prior", float, "Mean of the prior of a pixel. [0]"),
    Flag("--motion-weight", "training.loss.motion_weight", float, "Weight of pixels that change. [1]"),
    Flag("--noise", "training.noise.type", str, "Noise on inputs: bitflip or none. [bitflip]"),
    Flag("--noise-probability", "training.noise.probability", float, "Probability of a flipped pixel. [0.2]"),
    Flag(
        "--optimizer",
        "training.optimizer.name",
        str,
        "adam, sgd, momentum, adadelta, adagrad, rmsprop. [adam]",
    ),
    Flag("--momentum", "training.optimizer.momentum", float, "Of the optimizer momentum. [0.9]"),
    Flag("--batch-size", "training.batch_size", int, "Sequences in an update. [64]"),
    Flag("--train-size", "training.train_size", int, "Use at most so many training sequences."),
    Flag("--valid-size", "training.valid_size", int, "Use at most so many validation sequences. [1000]"),
    Flag("--test-size", "training.test_size", int, "Use at most so many test sequences when evaluating."),
    Flag("--window", "training.window", str, "Train on the 'start' of sequences or 'random' pieces. [start]"),
    Flag("--relational-loss", "training.relational_loss", str, "Array for it: collisions, events or none."),
    Flag("--last-steps", "training.last_steps", int, "Last steps that are reported by themselves. [10]"),
    Flag("--seed", "training.seed", int, "Seed of weights, noise and order. [0]"),
]
