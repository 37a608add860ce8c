"""Training that starts from a finished model, and is accepted only if it does not lose what that knew."""
