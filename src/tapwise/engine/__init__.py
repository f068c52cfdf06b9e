"""The engine: a checked problem, the plan chosen for it, and the kernels that run it."""
