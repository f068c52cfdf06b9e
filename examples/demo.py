"""The demo: a convolution explained, a series smoothed, a sound filtered, a page. See `make demo`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import soundfile
from chart import Line, chart

OUT = Path("demo-output")
CO2 = Path("examples/data/co2_monthly.csv")


def tapwise(*arguments: str) -> None:
    """Run the command as a user would, and show it."""
    print(f"\n$ tapwise {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "tapwise", *arguments], check=True)


def smooth_co2() -> None:
    """A 12-month mean twice: causal and centred, and a chart of what causality costs."""
    for padding in ("causal", "same"):
        tapwise(
            "apply",
            str(CO2),
            "--taps",
            "mean:12",
            "--padding",
            padding,
            "--column",
            "co2_ppm",
            "--padding-mode",
            "replicate",
            "-o",
            str(OUT / f"co2_{padding}.csv"),
        )
    ppm = pl.read_csv(CO2)["co2_ppm"].to_numpy()
    years = 1964 + (4 + np.arange(len(ppm))) / 12
    late, centred = (pl.read_csv(OUT / f"co2_{padding}.csv")["co2_ppm"].to_numpy() for padding in ("causal", "same"))
    # Of the centred mean, only what whole windows gave: the last 6 months still wait for theirs.
    inside = slice(5, -6)
    level = late[-30]
    shift = years[-30] - np.interp(level, centred[inside], years[inside])
    recent = years > 1996
    picture = chart(
        "CO2 at Mauna Loa, Hawaii, and its mean over 12 months",
        "The causal mean reads this month and the 11 before it: it knows today, but comes late.",
        "ppm",
        [
            Line("each month", years[recent], ppm[recent], "thin"),
            Line("centred", years[inside][recent[inside]], centred[inside][recent[inside]], "solid"),
            Line("causal", years[recent], late[recent], "dashed"),
        ],
        shift=(years[-30] - shift, years[-30], level, f"{12 * shift:.1f} months late"),
    )
    (OUT / "co2.svg").write_text(picture, encoding="utf-8")


def filter_sound() -> None:
    """Two tones made on the spot; a lowpass keeps the low one."""
    rate = 16000
    seconds = np.arange(10 * rate) / rate
    sound = 0.4 * np.sin(2 * np.pi * 220 * seconds) + 0.2 * np.sin(2 * np.pi * 3000 * seconds)
    soundfile.write(OUT / "tones.wav", sound, rate, subtype="PCM_16")
    tapwise("apply", str(OUT / "tones.wav"), "--taps", "lowpass:1000:101", "-o", str(OUT / "low_tone.wav"))


def main() -> None:
    started = time.perf_counter()
    OUT.mkdir(exist_ok=True)
    tapwise("doctor", "--warm")  # compiles once, so that what follows is timed without
    tapwise("explain", "--input", "0:10", "--taps", "1,1,1")
    tapwise("explain", "--input", "0:10", "--taps", "1,1,1", "--causal", "--save", str(OUT / "causal.svg"))
    smooth_co2()
    filter_sound()
    model = "examples/denoise/model.py:denoiser"
    tapwise("inspect", model, "--weights", "examples/denoise/denoiser.safetensors")
    live = ["examples/denoise/live.py", str(OUT)]
    print(f"\n$ python {' '.join(live)}", flush=True)
    subprocess.run([sys.executable, *live], check=True)
    store = str(OUT / "denoised.zarr")
    weights = ["--model", model, "--weights", "examples/denoise/denoiser.safetensors"]
    tapwise("apply", str(OUT / "noisy.wav"), store, *weights, "--overwrite")  # by parts, on all cores
    tapwise("explore", "--no-open", "-o", str(OUT / "tutorial.html"))
    print(f"\nIn {time.perf_counter() - started:.1f} s this wrote")
    for path in sorted(OUT.iterdir()):
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        print(f"  {path}  ({sum(file.stat().st_size for file in files):,} bytes)")
    page = (OUT / "tutorial.html").resolve().as_uri()
    print(f"\nOpen {page} in a browser: every number can be changed.")


if __name__ == "__main__":
    main()
