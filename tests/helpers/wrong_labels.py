"""Wrong labels of the tiny set."""

WRONG = [2, 20, 41]  # rows whose label is changed
