"""Heads that predict targets from features: softmax, binary, regression and joint, with their losses."""
