"""Small or large, similar or different: what a set of images is to a backbone, and which layers to train on it."""
