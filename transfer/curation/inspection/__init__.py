"""What is in a data set and what is wrong with it: a file per kind of finding."""
