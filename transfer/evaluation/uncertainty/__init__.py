"""How far a prediction can be relied on: prediction sets and their coverage, risk by coverage."""
