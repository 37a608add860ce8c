"""What a model got right, and whether one is better than another."""
