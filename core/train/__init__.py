"""Training: objective, steps, checkpoints."""
