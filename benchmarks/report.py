"""Write docs/speed.md and docs/images/speed.svg from the result files: python benchmarks/report.py."""

from __future__ import annotations

import csv
import json
import math
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "speed.md"
CHART = HERE.parent / "docs" / "images" / "speed.svg"
RESULTS = HERE / "results"

Result = dict[str, Any]

# Results hold "calls_us" since layers are compared; before, functions were.
LAYERS = "Compared are the layers, `nn.Conv1d` and `tw.Conv1d`, in processes that have freed a large block before."
FUNCTIONS = "Compared are the functions, `F.conv1d` and `tw.conv1d`."

HEAD = """# Speed

{dtype}, {threads} threads, each peer in a process of its own, in turns; the minimum of many counts.
*Ratio* is torch's time over ours, forward, and with backward for input, weight and bias: above 1 we are
faster. {compared} *Spread* is torch's time over its own in another process: a ratio within it says nothing. torch's
time is the better of padding first and padding both sides, then cropping to a view. *Best peer* is the
fastest of ONNX Runtime, SciPy's `oaconvolve`, julius and fft-conv-pytorch, and the ratio to it. ONNX Runtime and
Tapwise write outputs of over 32 MB into memory that they keep; torch's is new each time. *Floor* is the share of the larger of two times measured beside: a
copy of the row's bytes, and its products at the rate of a matrix product; transforms may pass it.

Measured {date} on {where}, torch {torch}, Numba {numba}, Python {python}. Other programs
shared the machine. `make bench` measures anew and `python benchmarks/report.py` writes this page.

![Bars: torch's time over ours, by row, on a logarithmic axis](images/speed.svg)

| row | family | kernel | torch, ms | Tapwise, ms | ratio | spread | with backward | spread | best peer | ratio | floor |
|---|---|---|---:|---:|---:|---:|---:|---:|---|---:|---:|
"""


def _read(name: str) -> Result | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _compared(result: Result) -> str:
    return LAYERS if "calls_us" in result else FUNCTIONS


@cache
def _names() -> dict[str, str]:
    with (HERE / "shapes.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: row["model"] for row in csv.DictReader(file)}


def named(name: str) -> str:
    """What a row is, and its short name: ``31-tap filter (fir31)``."""
    what = _names().get(name)
    return f"{what} ({name})" if what else name


def _cell(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.2f}" if name in row else "-"


def mean(rows: list[dict[str, Any]], name: str) -> str:
    """The geometric mean of a ratio, as text."""
    found = [row[name] for row in rows if name in row]
    return f"{math.exp(sum(map(math.log, found)) / len(found)):.2f}" if found else "-"


def _means(rows: list[dict[str, Any]]) -> str:
    text = "\n| family | rows | forward | with backward |\n|---|---:|---:|---:|\n"
    for family in (*dict.fromkeys(row["family"] for row in rows), "all"):
        some = [row for row in rows if family in (row["family"], "all")]
        text += f"| {family} | {len(some)} | {mean(some, 'ratio')} | {mean(some, 'ratio_both')} |\n"
    return text


def _where(result: Result) -> str:
    """The machine of a result, and the vectors that torch used there."""
    machine = result["machine"]
    return f"{machine['processor']}, {machine['vector units'].split()[0]}"


def page(result: Result, others: dict[str, Result]) -> str:
    """The page's text."""
    machine = result["machine"]
    text = HEAD.format(
        dtype=result["dtype"],
        compared=_compared(result),
        threads=result["threads"],
        date=machine["date"],
        where=_where(result),
        torch=machine["torch"],
        numba=machine["numba"],
        python=machine["python"].split()[0],
    )
    for row in result["rows"]:
        text += (
            f"| {named(row['name'])} | {row['family']} | {row['kernel']} | {row['torch_ms']:.3g} | "
            f"{row['tapwise_ms']:.3g} | {row['ratio']:.2f} | {row['spread']:.2f} | "
            f"{_cell(row, 'ratio_both')} | {_cell(row, 'spread_both')} | {row.get('peer', '-')} | "
            f"{_cell(row, 'ratio_peer')} | {_cell(row, 'share_of_floor')} |\n"
        )
    text += "\nGeometric means of the ratios to torch:\n" + _means(result["rows"])
    text += "\nWhere no ratio with backward stands, torch's takes a minute.\n"
    if "calls_us" in result:
        calls = ", ".join(f"`{name}` {us:.1f}" for name, us in result["calls_us"].items())
        text += f"\nA call on ten samples, in one process by turns, in microseconds: {calls}.\n"
    for title, other in others.items():
        text += (
            f"\n## {title}\n\nMeasured {other['machine']['date']} on {_where(other)}, "
            f"{other['threads']} threads. {_compared(other)}\n"
        )
        text += _means(other["rows"]) + _losses(other["rows"])
    return text


def _networks(end: str, title: str, command: str) -> str:
    """Whole networks, offline and live, and training steps.

    Arguments:
        end: of the result files' names.
    """
    result = _read(f"networks-cpu{end}")
    if result is None:
        return ""
    live, training = _read(f"networks-live-cpu{end}"), _read(f"networks-training-cpu{end}")
    peers = [peer for peer in result["rows"][0]["ms"] if peer not in ("eager", "eager again")]
    text = (
        f"\n## {title}\n\nWell-known architectures with random weights, float32, {result['threads']} threads: "
        "times eager's time, each peer in a process of its own, in turns, the least of all turns. *Accelerate* is "
        "`tw.accelerate(model)`, *tuned* the same with an example, *freeze* `tw.freeze`. *Floor* is the time of "
        f"the network's products at the rate of `torch.mm`. Measured {result['machine']['date']} on {_where(result)}, by "
        f"`{command}` (`benchmarks/networks.py` has the networks).\n\n| network | eager, ms | "
        + " | ".join(peers)
        + " | eager again | floor |\n|---|---:|"
        + "---:|" * (len(peers) + 2)
        + "\n"
    )
    for row in result["rows"]:
        eager, ms = row["ms"]["eager"], row["ms"]
        cells = [f"{eager / ms[peer]:.2f}" if peer in ms else "-" for peer in [*peers, "eager again"]]
        text += f"| {row['network']} | {eager:.3g} | {' | '.join(cells)} | {eager / row['floor_ms']:.2f} |\n"
    means = []
    for peer in peers:
        ratios = [row["ms"]["eager"] / row["ms"][peer] for row in result["rows"] if peer in row["ms"]]
        means.append(f"{peer} {_geometric_mean(ratios):.2f} ({len(ratios)} networks)")
    text += f"\nGeometric means: {', '.join(means)}.\n" + _failures(result)
    return text + (_live(live) if live else "") + (_training(training) if training else "")


def _failures(result: Result) -> str:
    lines = [
        f"- {row['network']}, {peer}: {why}" for row in result["rows"] for peer, why in sorted(row["failed"].items())
    ]
    return "\nWhat a peer couldn't do:\n\n" + "\n".join(lines) + "\n" if lines else ""


def _geometric_mean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def _live(result: Result) -> str:
    """Steps of streams."""
    peers = list(dict.fromkeys(peer for row in result["rows"] for peer in row["ms"]))
    turns = (
        f"Turns of {result['turn_seconds']:g} s, Python's objects frozen (`gc.freeze`) before"
        if "turn_seconds" in result
        else "Turns of 0.4 s, in which Python may collect its objects"
    )
    text = (
        f"\nThe same, live: a step of a stream of one frame or about 10 ms, {result['threads']} thread(s). *Stream* is "
        "`tw.stream(model, x)`, *frozen stream* `tw.stream(tw.freeze(model, x))`, with `dtype=torch.bfloat16` too, ONNX Runtime runs the step that "
        f"`functional` exports. {turns}. Median and 99th percentile of all steps, ms; *floor*: all weights read once, at the rate "
        "at which as much memory is read, and 2 us for each compiled step, without what is computed; measured "
        f"{result['machine']['date']} on {_where(result)}.\n\n| network | chunk, ms | "
        + " | ".join(f"{peer}, 50% | 99%" for peer in peers)
        + " | floor |\n|---|---:|"
        + "---:|" * (2 * len(peers) + 1)
        + "\n"
    )
    for row in result["rows"]:
        cells = [f"{row['median_ms'][p]:.2f} | {row['p99_ms'][p]:.2f}" if p in row["ms"] else "- | -" for p in peers]
        text += f"| {row['network']} | {row['chunk_ms']:.1f} | {' | '.join(cells)} | {row['floor_ms']:.2f} |\n"
    return text + _failures(result)


def _training(result: Result) -> str:
    """Training steps."""
    peers = [peer for peer in result["rows"][0]["ms"] if peer != "eager"]
    text = (
        f"\nTraining steps, forward and backward in training, without an optimizer, {result['threads']} threads; measured "
        f"{result['machine']['date']} on {_where(result)}.\n\n| network | eager, ms | {' | '.join(peers)} |\n|---|---:|"
        + "---:|" * len(peers)
        + "\n"
    )
    for row in result["rows"]:
        cells = [f"{row['ms']['eager'] / row['ms'][peer]:.2f}" if peer in row["ms"] else "-" for peer in peers]
        text += f"| {row['network']} | {row['ms']['eager']:.3g} | {' | '.join(cells)} |\n"
    return text + _failures(result)


def _bfloat16(networks: Result | None, layers: Result | None) -> str:
    """What bfloat16 gains: whole networks, and single layers."""
    text = ""
    if networks:
        peers = [peer for peer in networks["rows"][0]["ms"] if peer not in ("eager", "eager again")]
        text += (
            "\n## In bfloat16\n\nThe same networks where the processor's matrices (Intel AMX) may be used, "
            f"{networks['threads']} threads: times eager's time in float32. *Autocast* is "
            '`torch.autocast("cpu", torch.bfloat16)`, *accelerate, autocast* the same around an accelerated model, '
            "*accelerate, bfloat16* `tw.accelerate(model, dtype=torch.bfloat16)`, *freeze, bfloat16* `tw.freeze(model, x, "
            "dtype=torch.bfloat16)`. *Error*: of the last one's outputs, the largest by the largest output. Measured "
            f"{networks['machine']['date']} on {_where(networks)}.\n\n| network | eager, ms | "
            + " | ".join(peers)
            + " | error |\n|---|---:|"
            + "---:|" * (len(peers) + 1)
            + "\n"
        )
        for row in networks["rows"]:
            eager, ms = row["ms"]["eager"], row["ms"]
            cells = [f"{eager / ms[peer]:.2f}" if peer in ms else "-" for peer in peers]
            text += (
                f"| {row['network']} | {eager:.3g} | {' | '.join(cells)} | {row['error']['freeze, bfloat16']:.1%} |\n"
            )
        means = []
        for peer in peers:
            ratios = [row["ms"]["eager"] / row["ms"][peer] for row in networks["rows"] if peer in row["ms"]]
            means.append(f"{peer} {_geometric_mean(ratios):.2f}")
        text += f"\nGeometric means: {', '.join(means)}.\n" + _failures(networks)
    if layers:
        text += (
            "\nThe layers of the first table in bfloat16, inputs, weights and outputs, ours beside torch's own in bfloat16, "
            f"{layers['threads']} threads; measured {layers['machine']['date']} on {_where(layers)}.\n\n| row | kernel | "
            "torch, ms | Tapwise, ms | ratio | spread | with backward | spread |\n|---|---|---:|---:|---:|---:|---:|---:|\n"
        )
        for row in layers["rows"]:
            text += (
                f"| {named(row['name'])} | {row['kernel']} | {row['torch_ms']:.3g} | {row['tapwise_ms']:.3g} | "
                f"{row['ratio']:.2f} | {row['spread']:.2f} | {_cell(row, 'ratio_both')} | {_cell(row, 'spread_both')} |\n"
            )
        text += _means(layers["rows"])
    return text


def _streams(result: Result) -> str:
    """The streams' section."""
    words = (
        "\n## Streams\n\nA chunk of a model's stream, beside its context computed anew with each chunk (the "
        "receptive field, or the last second), and beside other libraries' streams of the same layers; "
        f"{result['threads']} threads; measured {result['machine']['date']} by `python "
        "benchmarks/bench_stream.py`. Models have random weights and their real sizes; a chunk is one frame or "
        "10 ms. *Bare* are the kernels of a step alone: the "
        "difference is what the stream adds, here for each operation.\n\n| model | subject | operations | median, ms | 99%, ms | to ours | us an operation |\n|---|---|---:|---:|---:|---:|---:|\n"
    )
    lines = [
        f"| {r['model']} | {r['subject']} | {r.get('operations', '')} | {1e3 * r['median']:.3g} | "
        f"{1e3 * r['p99']:.3g} | {r['ratio']:.2f} | "
        + (f"{r['overhead_us']:.1f} |" if r.get("overhead_us", 0) > 0 else "|")
        for r in result["rows"]
    ]
    return words + "\n".join(lines) + "\n"


def _losses(rows: list[dict[str, Any]]) -> str:
    """The rows where we are slower than torch beyond its own spread."""
    lost = [
        (row, kind)
        for row in rows
        for kind in ("", "_both")
        if "ratio" + kind in row and row["ratio" + kind] * row["spread" + kind] < 1
    ]
    text = f"\nSlower than torch beyond its own spread: {len(lost)} of {2 * len(rows)}.\n"
    if lost:
        text += "\n| row | shape | kernel | | ratio | spread |\n|---|---|---|---|---:|---:|\n"
    for row, kind in lost:
        shape = ", ".join(f"{name} {value}" for name, value in row["shape"].items())
        words = "with backward" if kind else "forward"
        text += (
            f"| {row['name']} | {shape} | {row['kernel']} | {words} | {row['ratio' + kind]:.2f} | "
            f"{row['spread' + kind]:.2f} |\n"
        )
    return text


STYLE = """
svg{--ink:#1b1f24;--soft:#5b6570;--grid:#e3e7eb;--fast:#0072b2;--slow:#b06f00}
@media (prefers-color-scheme:dark){svg{--ink:#eceff2;--soft:#a9b3bd;--grid:#2c343c;--fast:#6cb8ee;--slow:#f0b541}}
text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--soft)}
.title{font-size:15px;font-weight:600;fill:var(--ink)}
.fast{fill:var(--fast)}.slow{fill:var(--slow)}.grid{stroke:var(--grid)}.one{stroke:var(--ink)}
.end{text-anchor:end}.middle{text-anchor:middle}
"""


def chart(result: Result) -> str:
    """Each row's ratio to torch, forward, as a bar on a logarithmic axis from 1."""
    rows = sorted(result["rows"], key=lambda row: -row["ratio"])
    left, right, top, step = 345, 60, 62, 17
    width, height = 780, top + step * len(rows) + 14
    low, high = 0.5, 10 ** math.ceil(math.log10(max(row["ratio"] for row in rows)))

    def across(ratio: float) -> float:
        share = math.log(max(ratio, low) / low) / math.log(high / low)
        return round(left + share * (width - left - right), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-labelledby="t"><title id="t">torch\'s time over ours, '
        f"forward, for each row of the benchmark</title><style>{STYLE}</style>",
        '<text class="title" x="14" y="24">How many times as fast as torch, forward</text>',
    ]
    for mark in (1, 2, 5, *(10**p for p in range(1, round(math.log10(high)) + 1))):
        x = across(mark)
        parts.append(
            f'<line class="{"one" if mark == 1 else "grid"}" x1="{x}" x2="{x}" y1="{top - 10}" '
            f'y2="{height - 10}"/><text class="middle" x="{x}" y="{top - 15}">{mark}x</text>'
        )
    for number, row in enumerate(rows):
        y, one, end = top + step * number, across(1), across(row["ratio"])
        kind = "slow" if row["ratio"] * row["spread"] < 1 else "fast"
        parts.append(
            f'<text class="end" x="{left - 12}" y="{y + 10}">{escape(named(row["name"]))}</text>'
            f'<rect class="{kind}" x="{min(one, end)}" y="{y}" width="{max(abs(end - one), 1):.1f}" '
            f'height="{step - 5}"/><text x="{max(one, end) + 5}" y="{y + 10}">{_short(row["ratio"])}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _short(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


OTHERS = {
    "Random shapes": "conv1d-cpu-random",
    "Random shapes, tuned": "conv1d-cpu-random-tuned",
    "One thread": "conv1d-cpu-1-thread",
    "AVX2 only": "conv1d-cpu-avx2",
    "Random shapes, AVX2 only": "conv1d-cpu-avx2-random",
}


# On a processor that has no more: ONNX Runtime can't be kept from it.
AVX2_COMMAND = "benchmarks/bench_networks.py --rounds 2 --name networks-cpu-avx2"


def document() -> str:
    """The whole page, from the result files that there are."""
    result, streams = _read("conv1d-cpu"), _read("stream-cpu")
    assert result is not None
    others = {title: found for title, name in OTHERS.items() if (found := _read(name))}
    return (
        page(result, others)
        + _networks("", "Whole networks", "make bench-models")
        + _networks("-avx2", "Whole networks, AVX2 only", AVX2_COMMAND)
        + _bfloat16(_read("networks-bfloat16-cpu"), _read("conv1d-cpu-bfloat16"))
        + (_streams(streams) if streams else "")
    )


def main() -> None:
    PAGE.write_text(document())
    result = _read("conv1d-cpu")
    assert result is not None
    CHART.write_text(chart(result))
    print(f"wrote {PAGE} and {CHART}")


if __name__ == "__main__":
    main()
