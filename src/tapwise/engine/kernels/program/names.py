"""The names of what is done sample by sample, torch's where it has one, in the order of their numbers."""

# By name, how many operands a function takes: x, z and w.
OPERANDS = {
    **dict.fromkeys(("relu", "leaky_relu", "elu", "sigmoid", "tanh", "gelu", "gelu_tanh", "silu"), 1),
    **dict.fromkeys(("sin", "exp", "square", "abs", "copy"), 1),
    **dict.fromkeys(("prelu", "add", "sub", "mul", "div", "maximum", "gate", "glu"), 2),
    **dict.fromkeys(("affine", "normalise", "snake"), 3),
}
MAPS = tuple(OPERANDS)
