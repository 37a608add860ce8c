"""Evaluation: predictions of saved or trained models, their metrics per domain, and the data of reports."""
