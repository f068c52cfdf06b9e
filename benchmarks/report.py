"""Write docs/speed.md from results/conv1d-cpu.json: python benchmarks/report.py."""

from __future__ import annotations

import json
import math
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "speed.md"
RESULT = HERE / "results" / "conv1d-cpu.json"

HEAD = """# Speed

Forward, {dtype}, {threads} threads for torch and one for our own kernel. Each peer ran in a process of its
own, in turns; the minimum counts. *Ratio* is torch's time over ours: above 1 we are faster. *Spread* is
torch's time over its own in another process: a ratio within it says nothing. `make bench` measures anew
and `python benchmarks/report.py` writes this page.

Measured {date} on {processor}, {cores}, torch {torch}, Numba {numba}, Python {python}.

Where the kernel is *native*, torch runs. What is then lost on the smallest rows is the time to choose; on
rows padded on one side, that torch's time is the better of padding first, as we do, and padding both
sides, then cropping to a view.

| row | family | kernel | torch, ms | Tapwise, ms | ratio | spread |
|---|---|---|---:|---:|---:|---:|
"""


def page(result: dict) -> str:  # type: ignore[type-arg]
    """The page's text."""
    machine = result["machine"]
    processor, vectors = machine["processor"], machine["vector units"].split()[0]
    text = HEAD.format(
        dtype=result["dtype"], threads=result["threads"], date=machine["date"],
        processor=processor.rpartition(",")[0], cores=processor.rpartition(",")[2].strip() + f", {vectors}",
        torch=machine["torch"], numba=machine["numba"], python=machine["python"].split()[0],
    )  # fmt: skip
    for row in result["rows"]:
        text += (
            f"| {row['name']} | {row['family']} | {row['kernel']} | {row['torch_ms']:.3g} | "
            f"{row['tapwise_ms']:.3g} | {row['ratio']:.2f} | {row['torch_spread']:.2f} |\n"
        )
    text += "\n| family | geometric mean of the ratio |\n|---|---:|\n"
    for family in dict.fromkeys(row["family"] for row in result["rows"]):
        logs = [math.log(row["ratio"]) for row in result["rows"] if row["family"] == family]
        text += f"| {family} | {math.exp(sum(logs) / len(logs)):.2f} |\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(RESULT.read_text())))
    print(f"wrote {PAGE}")
