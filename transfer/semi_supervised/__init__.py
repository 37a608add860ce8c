"""Unlabelled images in training: labels propagated over a graph of neighbours, where that pays."""
