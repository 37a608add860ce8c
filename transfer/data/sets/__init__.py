"""Named data sets: embedded digits, Office-31, and how they are downloaded and unpacked."""
