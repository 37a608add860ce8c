"""Penalties: what a training step adds to its loss."""
