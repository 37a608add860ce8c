"""Refinement of the target's class probabilities on the geometry of its own features."""
