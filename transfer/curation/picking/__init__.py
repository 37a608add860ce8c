"""Strategies that choose the images to label next, from their features: one file for each idea."""
