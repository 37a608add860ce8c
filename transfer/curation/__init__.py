"""Look after a data set: what to label next, and what is wrong with it."""
