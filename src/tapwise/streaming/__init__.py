"""Streaming: an unmodified model, chunk by chunk, equal to its run over the full signal."""
