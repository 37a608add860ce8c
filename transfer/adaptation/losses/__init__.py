"""Losses beside the source's own: one idea per file."""
