"""Baseline of a course on transfer learning: networks trained from scratch on pixels.

An MLP and a small CNN with selectable activation, initialisation, input scaling and batch normalisation.
"""
