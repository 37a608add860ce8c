"""Local web pages: the review of labels."""
