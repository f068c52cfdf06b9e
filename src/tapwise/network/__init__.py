"""Whole networks: a model read as a graph of operations, each with its timeline."""
