"""Studies that compare policies, methods and optimizers; their tables and plots."""
