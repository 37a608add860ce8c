"""From a labelled domain to an unlabelled one: an objective or closed form per method, chosen without target labels."""
