"""What may be said of a candidate, and of the shift, without a target label."""
