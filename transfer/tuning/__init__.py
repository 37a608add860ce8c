"""Hyper-parameter search, the learning-rate range test and the `advise` command."""
