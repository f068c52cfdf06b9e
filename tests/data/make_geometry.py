"""Write geometry.json: what outputs read, by brute force; Python's geometry and the page's are held to it.

python tests/data/make_geometry.py
"""

import json
import random
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import oracle  # noqa: E402

WORDS = ("valid", "same", "causal", "semicausal", "full")
MODES = ("zeros", "zeros", "reflect", "replicate", "circular")


def vector(rng):
    """One setting, a length, and for each output the inputs that it reads."""
    taps, stride, dilation = rng.randint(1, 5), rng.randint(1, 4), rng.randint(1, 3)
    length = rng.randint(3, 14)
    setting = {"kernel_size": taps, "stride": stride, "dilation": dilation, "length": length}
    weight = np.ones((1, 1, taps))
    if rng.random() < 0.3:
        cut = (rng.randint(0, 3), rng.randint(0, 3))
        extra = rng.randint(0, max(stride, dilation) - 1)
        setting |= {"transposed": True, "padding": cut, "output_padding": extra}
        setting |= {"padding_mode": "zeros", "pads": cut}

        def run(x):
            return oracle.conv_transpose1d(x, weight, None, stride, cut, extra, dilation)
    else:
        word = rng.choice([*WORDS, None])
        mode = rng.choice(MODES)
        pads = (rng.randint(0, 4), rng.randint(0, 4))
        if word is not None:
            pads = oracle.pads_of_word(word, taps, stride, dilation)
        setting |= {"transposed": False, "padding": word or pads, "output_padding": 0}
        setting |= {"padding_mode": mode, "pads": pads}

        def run(x):
            return oracle.conv1d(x, weight, None, stride, pads, dilation, 1, mode)

    if run(np.zeros((1, 1, length))).shape[-1] == 0:
        return None
    reads = oracle.influence(run, length)
    return setting | {"reads": [sorted(inputs) for inputs in reads]}


def main():
    rng = random.Random(0)
    vectors = [v for v in (vector(rng) for _ in range(300)) if v is not None]
    lines = ",\n".join(json.dumps(v) for v in vectors)
    (HERE / "geometry.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
