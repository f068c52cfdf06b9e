"""Explanation: what a convolution did, as values (trace), in words (text) and in pictures (svg)."""
