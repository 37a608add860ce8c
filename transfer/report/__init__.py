"""Result files -> what people read. Knows nothing of training."""
