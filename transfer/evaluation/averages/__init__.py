"""Several models or views as one: ensembles, model soups and test-time augmentation."""
