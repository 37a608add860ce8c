"""Training: the one loop, its optimizers, its saved models, and the commands that run it."""
