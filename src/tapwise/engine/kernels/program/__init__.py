"""program: parts of a network in one compiled loop, on sequences that lie moment by moment."""
