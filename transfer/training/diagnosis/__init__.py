"""What went wrong in training, and what to try next: the monitor, and conflicts between the gradients of heads."""
