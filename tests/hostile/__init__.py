"""Hostile inputs, one file for each kind of input, and a test that gives them to the commands."""
