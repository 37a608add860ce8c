"""Linear probes on frozen features: solved by L-BFGS, Head2Toe and probes of several stages."""
