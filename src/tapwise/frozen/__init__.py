"""Frozen networks: the graph of a model in evaluation, prepared once and run by compiled programs."""
