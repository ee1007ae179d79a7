"""Region proposals on slices: the network, its training, its graphs."""
