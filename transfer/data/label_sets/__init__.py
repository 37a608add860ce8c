"""Several labels an image: how they are written in a table or in folders, and how a split shares them out."""
