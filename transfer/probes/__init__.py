"""Linear probes on frozen features: one solver for training, Head2Toe, stage probes and cross-validation."""
