"""Results as text for the console."""
