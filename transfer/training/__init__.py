"""Training: the epoch loop, its optimizers and penalties, and the commands that run it."""
