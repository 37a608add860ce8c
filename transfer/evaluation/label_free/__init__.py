"""Accuracy without labels: how often is a model right about images that nobody has labelled?"""
