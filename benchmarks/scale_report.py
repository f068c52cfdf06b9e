"""Write the measured part of docs/scale.md and its chart from the result files: python benchmarks/scale_report.py."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "scale.md"
CHART = HERE.parent / "docs" / "images" / "scale.svg"
MARK = "<!-- measured -->"


def _where(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return f"Measured {machine['date']} on {machine['processor']}, torch {machine['torch']}; other programs shared the machine."


def recordings(result: dict[str, Any]) -> str:
    """The table of a filter over stores of growing length."""
    lines = [
        f"A causal filter of {result['taps']} taps, dilation {result['dilation']}, float32, {result['threads']} threads, one chunk "
        "a million samples, each subject in a process of its own, in turns; the least of the rounds (beyond 100 million samples "
        "one). *Copy* reads and writes the same store, *Dask* is `map_overlap` of the same layer. Memory is above the imports. "
        f"{_where(result)}",
        "",
        "| samples | copy, s | Tapwise, s | Dask, s | of the copy's rate | of Dask's rate | Tapwise, MB | Dask, MB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        copy, ours, dask = (row[name]["seconds"] for name in ("copy", "apply", "map_overlap"))
        lines.append(
            f"| {row['samples']:,} | {copy:.2f} | {ours:.2f} | {dask:.2f} | {copy / ours:.2f} | {dask / ours:.2f} | "
            f"{row['apply']['bytes'] / 1e6:.0f} | {row['map_overlap']['bytes'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


def chart(rows: list[dict[str, Any]]) -> str:
    """Seconds and memory over length, both axes logarithmic."""
    width, height, left, top, span_x, span_y = 720, 300, 60, 40, 260, 200

    def panel(at: int, title: str, key: str, scale: float, low: int, high: int, unit: str) -> list[str]:
        def place(row: dict[str, Any]) -> tuple[float, float]:
            x = at + (math.log10(row["samples"]) - 6) / 3 * span_x
            value = max(row["apply"][key] / scale, 10**low)
            return x, top + span_y - (math.log10(value) - low) / (high - low) * span_y

        points = [place(row) for row in rows]
        parts = [f'<text x="{at}" y="{top - 16}" class="title">{title}</text>']
        for power in range(6, 10):
            x = at + (power - 6) / 3 * span_x
            parts.append(f'<line x1="{x:.0f}" y1="{top}" x2="{x:.0f}" y2="{top + span_y}" class="grid"/>')
            parts.append(f'<text x="{x:.0f}" y="{top + span_y + 18}" text-anchor="middle">10^{power}</text>')
        for power in range(low, high + 1):
            y = top + span_y - (power - low) / (high - low) * span_y
            parts.append(f'<line x1="{at}" y1="{y:.0f}" x2="{at + span_x}" y2="{y:.0f}" class="grid"/>')
            parts.append(f'<text x="{at - 6}" y="{y + 4:.0f}" text-anchor="end">{10.0**power:g} {unit}</text>')
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" class="line"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="dot"/>' for x, y in points]
        parts.append(f'<text x="{at + span_x / 2:.0f}" y="{top + span_y + 36}" text-anchor="middle">samples</text>')
        return parts

    body = panel(left, "time", "seconds", 1.0, -2, 2, "s")
    body += panel(left + span_x + 90, "memory above the imports", "bytes", 1e6, 0, 3, "MB")
    style = (
        ".p{--ink:#1b1f24;--page:#fff;--line:#0072b2;--grid:#d7dce1}"
        "@media (prefers-color-scheme:dark){.p{--ink:#eceff2;--page:#15191e;--line:#6cb8ee;--grid:#343b43}}"
        "text{font:13px system-ui,sans-serif;fill:var(--ink)}.title{font-weight:600}.grid{stroke:var(--grid)}"
        ".line{fill:none;stroke:var(--line);stroke-width:2}.dot{fill:var(--line)}.page{fill:var(--page)}"
    )
    label = "Time grows in proportion to the samples; memory grows to that of tasks of full size, then stays flat"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="p" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{label}"><style>{style}</style><rect class="page" width="100%" height="100%"/>'
        f"{''.join(body)}</svg>\n"
    )


def models(result: dict[str, Any]) -> str:
    """The cost model held against runs, and carried on."""
    lines = [
        "**Held against runs.** The time of a step over ranks is taken to be what its rank computes alone on as long a shard, a copy "
        "of each layer's outputs forward and of its gradient backward, three waits a layer (lengths, halo forward, halo backward) as between ranks that compute, "
        "and what of the samples on the wire isn't hidden. Four convolutions of 16 channels over 800,000 samples, forward and "
        "backward, gloo, one thread a rank, of "
        f"{result['ranks'][0]['runs']} runs that with the median ratio; the ratio says where the model fails. "
        + _where(result),
        "",
        "| ranks | alone on the shard, s | predicted, s | measured, s | measured / predicted | sent by the last rank, bytes |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['ranks']} | {row['compute']:.3f} | {row['predicted']:.3f} | {row['measured']:.3f} | "
        f"{row['measured'] / row['predicted']:.2f} | {row['sent']:,} |"
        for row in result["ranks"]
    ]
    lines += [
        "",
        f"This machine has {result['cores']} cores: more ranks or workers than that share them, and wait for each other. Of "
        "recordings by parts, 32 million samples, predicted is the larger of two: the time in which one part alone is read, filtered "
        "and written, times the parts, over the workers; and its processor time, times the parts, over the cores (Zarr has threads "
        "of its own):",
        "",
        "| workers | predicted, s | measured, s | measured / predicted |",
        "|---:|---:|---:|---:|",
    ]
    for row in result["workers"]:
        ratio = row["measured"] / row["predicted"]
        lines.append(f"| {row['workers']} | {row['predicted']:.2f} | {row['measured']:.2f} | {ratio:.2f} |")
    device = result["simulated"]["device"]
    lines += [
        "",
        "**Carried on, not measured.** Twenty causal layers of 256 channels, 3 taps, dilations 1 to 512, in 2 bytes a number; a "
        f"million samples a rank; devices of {device['flops']:.0e} products a second, links of {device['wire']:.1e} bytes a second and "
        f"{device['latency'] * 1e6:.0f} microseconds (assumptions). Halos don't grow with the ranks, so a step of as many samples a "
        "rank takes as long over 1,024 as over 2:",
        "",
        "| ranks | samples | sent by a rank, bytes | a step, s | of it computing |",
        "|---:|---:|---:|---:|---:|",
    ]
    for row in result["simulated"]["ranks"]:
        lines.append(
            f"| {row['ranks']:,} | {row['samples']:,} | {row['sent']:,} | {row['seconds']:.3f} | {100 * row['share']:.0f}% |"
        )
    lines += [
        "",
        "Recordings in float32 through the filter above, at this machine's rates a core, from a store that keeps up:",
        "",
        "| recording | cores | time | read and written, bytes a second |",
        "|---:|---:|---:|---:|",
    ]
    for row in result["simulated"]["recordings"]:
        hours = row["seconds"] / 3600
        took = f"{row['seconds']:.0f} s" if hours < 1 else f"{hours:,.1f} hours"
        lines.append(f"| {row['bytes']:.0e} bytes | {row['cores']:,} | {took} | {row['bytes_a_second']:.1e} |")
    return "\n".join(lines)


def main() -> None:
    """Write the page and the chart."""
    scale = json.loads((HERE / "results" / "scale-cpu.json").read_text())
    model = json.loads((HERE / "results" / "scale-model.json").read_text())
    head = PAGE.read_text().split(MARK)[0]
    picture = "![Time over samples, a straight line; memory over samples, flat once tasks have their full size](images/scale.svg)"
    PAGE.write_text(f"{head}{MARK}\n\n{recordings(scale)}\n\n{picture}\n\n{models(model)}\n")
    CHART.write_text(chart(scale["rows"]))


if __name__ == "__main__":
    main()
