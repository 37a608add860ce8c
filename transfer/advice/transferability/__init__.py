"""Transferability scores of frozen features: LogME, LEEP, H-score, cross-validated probes and more."""
