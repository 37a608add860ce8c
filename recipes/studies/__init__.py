"""Studies of the recipes: what they compare, and the tables and plots of their results."""
