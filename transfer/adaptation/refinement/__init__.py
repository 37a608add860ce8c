"""Class probabilities of the target from its own geometry."""
