"""Write docs/networks.md: which operations can be followed, and reports of well-known models.

python docs/make_reports.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import fill

import torch

import tapwise as tw
from tapwise.network.operation_names import MIXES, OVER_AXES, POINTWISE
from tapwise.network.operations import ACCUMULATIONS
from tapwise.network.rules import PRODUCTS_AND_NORMS
from tapwise.network.rules_convolutions import CONVOLUTIONS
from tapwise.network.rules_shapes import SHAPES
from tapwise.network.rules_windows_2d import WINDOWS_2D

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import exercises  # noqa: E402

HEAD = """# Networks

`tapwise.inspect` and `tapwise.stream` read a model from real runs: they record what it asks torch to do with the
signal, at several lengths, and have a rule for each operation that says how it maps time. The result is checked
against the model itself: a NaN at one sample has to reach, after every operation, exactly the outputs that the
timelines say. This page is written by `python docs/make_reports.py`.

"""


def operations() -> str:
    """The operations that can be followed, as a section."""
    recurrences = ["lstm", "gru", "rnn_tanh", "rnn_relu"]
    norms = ["batch_norm", "instance_norm", "layer_norm", "rms_norm", "local_response_norm"]
    groups = {
        "Sample by sample, of the signal and of what is the same at every moment": POINTWISE,
        "Over an axis that isn't time": OVER_AXES,
        "All of the past": ACCUMULATIONS,
        "Axes, parts and pads (zeros, constant, replicate, reflect)": {*SHAPES, "pad"},
        "Windows": {*CONVOLUTIONS, *WINDOWS_2D} - {"pad", *recurrences},
        "Recurrences, from the past to the future": recurrences,
        "Products with a constant, over an axis that isn't time": set(PRODUCTS_AND_NORMS) - set(norms),
        "Normalisation of each moment (batch_norm and instance_norm in evaluation)": norms,
    }
    exercised = set(exercises.names())
    groups = {title: sorted(exercised & set(names)) for title, names in groups.items()}
    parts = [
        "## Operations that can be followed\n\n"
        "Each is read and streamed by a test, in every spelling that torch has: function, method, in place.\n"
    ]
    for title, names in groups.items():
        parts.append(f"**{title}:** " + fill(", ".join(f"`{n}`" for n in names), 108) + "\n")
    refused = "\n".join(f"| `{name}` | {reason} | {remedy} |" for name, (reason, remedy) in sorted(MIXES.items()))
    parts.append(
        "Anything else is refused by the path of its module, with the reason and a remedy;\n"
        "`tapwise.register` teaches an operation, or a whole module, its timeline. Refused by name:\n\n"
        f"| operation | why | in its place |\n|---|---|---|\n{refused}\n"
    )
    return "\n".join(parts)


def models() -> dict[str, tuple[torch.nn.Module, torch.Tensor, str]]:
    """Well-known models with random weights."""
    from transformers import MimiConfig, SpeechT5HifiGan, SpeechT5HifiGanConfig
    from transformers.models.mimi.modeling_mimi import MimiEncoder

    torch.manual_seed(0)
    return {
        "Mimi's encoder": (
            MimiEncoder(MimiConfig()),
            torch.randn(1, 1, 4800),
            "MimiEncoder(MimiConfig()), torch.randn(1, 1, 4800)",
        ),
        "HiFi-GAN": (
            SpeechT5HifiGan(SpeechT5HifiGanConfig()),
            torch.randn(1, 24, 80),
            "SpeechT5HifiGan(SpeechT5HifiGanConfig()), torch.randn(1, 24, 80)",
        ),
    }


def main() -> None:
    parts = [HEAD, operations()]
    for name, (model, example, code) in models().items():
        report = tw.inspect(model.eval(), example)
        slug = name.lower().replace("'s ", "-").replace(" ", "-")
        picture = HERE / "images" / f"{slug}.svg"
        report.save(picture)
        parts.append(
            f"\n## {name}\n\nOf transformers, with random weights: `tapwise.inspect({code})`.\n\n"
            f"![Bars: what each layer reads of the signal](images/{picture.name})\n\n"
            f"```text\n{report}\n```\n"
        )
    path = HERE / "networks.md"
    path.write_text("".join(parts))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
