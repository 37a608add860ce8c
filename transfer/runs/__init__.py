"""A run folder: its files, checkpoints, resumable states, model card and summary over seeds."""
