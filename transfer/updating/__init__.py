"""A saved run with further images, classes or domains, or corrected labels, as a new run."""
