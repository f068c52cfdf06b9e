"""The names of what is done sample by sample, in the order of their numbers."""

# By name, how many operands a function takes: x, z and w.
OPERANDS = {
    **dict.fromkeys(("relu", "leaky_relu", "elu", "logistic", "hyperbolic", "gelu", "gelu_tanh", "silu"), 1),
    **dict.fromkeys(("sine", "exponential", "square", "magnitude", "scale", "copy"), 1),
    **dict.fromkeys(("prelu", "add", "subtract", "multiply", "divide", "larger", "gate", "glu"), 2),
    **dict.fromkeys(("affine", "normalise", "snake"), 3),
}
MAPS = tuple(OPERANDS)
