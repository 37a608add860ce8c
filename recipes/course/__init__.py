"""Networks that learn from pixels alone: the baseline of a course on transfer learning, and what such networks teach.

An MLP and a small CNN, with the textbook's choices of activation, initialisation, input and batch normalisation.
"""
