"""Choose a policy from evidence: data set size, similarity to the pretraining data, and the accuracy of probes."""
