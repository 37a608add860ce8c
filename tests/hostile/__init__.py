"""Files from strangers: what they are (one file a kind), and what the commands make of them."""
