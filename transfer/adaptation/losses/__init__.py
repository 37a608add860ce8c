"""Losses that adaptation methods minimise beside the cross-entropy of labelled rows."""
