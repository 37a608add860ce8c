"""CSV tables that name the labels of images."""
