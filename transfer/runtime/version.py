"""The version of this package; pyproject.toml reads it here, so a clone that was updated by git names its own."""

VERSION = "0.1.0"
