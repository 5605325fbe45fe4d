"""Training: configuration, losses, the trainer, checkpoints and logs."""
