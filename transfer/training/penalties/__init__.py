"""Regularisers: terms that a training step adds to its loss."""
