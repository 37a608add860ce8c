"""Methods with a closed form: alignment of features, linear classifiers, BatchNorm statistics."""
