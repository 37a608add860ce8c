"""The head with any number of labels an image, and its metrics."""
