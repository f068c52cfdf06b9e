"""Hypothesis strategies: geometries and everything that goes with them."""

from hypothesis import strategies as st

from tapwise.geometry import Geometry
from tapwise.padding import PADDING_MODES, PADDING_WORDS

small_pads = st.tuples(st.integers(0, 12), st.integers(0, 12))
paddings = st.one_of(st.sampled_from(PADDING_WORDS), st.integers(0, 12), small_pads)


@st.composite
def convolutions(draw, modes=PADDING_MODES):
    """A geometry of a convolution and a length that it takes."""
    geometry = Geometry(
        draw(st.integers(1, 9)),
        stride=draw(st.integers(1, 12)),
        dilation=draw(st.integers(1, 6)),
        padding=draw(paddings),
        groups=draw(st.integers(1, 3)),
        padding_mode=draw(st.sampled_from(modes)),
    )
    shortest = max(geometry.input_length(1), 2 if geometry.padding_mode == "reflect" else 1)
    return geometry, draw(st.integers(shortest, shortest + 40))


@st.composite
def transposed(draw):
    """A geometry of a transposed convolution and a length that it takes."""
    stride, dilation = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    kernel_size = draw(st.integers(1, 9))
    causal = draw(st.booleans())
    geometry = Geometry(
        kernel_size,
        stride=stride,
        dilation=dilation,
        padding="causal" if causal else draw(small_pads),
        groups=draw(st.integers(1, 3)),
        transposed=True,
        output_padding=0 if causal else draw(st.integers(0, max(stride, dilation) - 1)),
    )
    return geometry, draw(st.integers(geometry.input_length(1), geometry.input_length(1) + 25))
