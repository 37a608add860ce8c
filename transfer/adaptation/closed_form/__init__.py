"""Adaptation methods in closed form: feature alignment, AdaBN and the classifiers solved on them."""
