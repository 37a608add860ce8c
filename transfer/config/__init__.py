"""Typed configs, one definition for the command line, the Python API and config.json. Imports no torch."""
