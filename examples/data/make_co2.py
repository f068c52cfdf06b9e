"""Make co2_monthly.csv from the weekly record that statsmodels carries: the mean of each month.

pip install statsmodels && python examples/data/make_co2.py
"""

from pathlib import Path

import polars as pl
from statsmodels.datasets import co2

FIRST_WITHOUT_GAPS = "1964-05"

if __name__ == "__main__":
    weekly = co2.load_pandas().data.reset_index(names="week")
    monthly = (
        pl.from_pandas(weekly)
        .drop_nulls()
        .group_by(pl.col("week").dt.strftime("%Y-%m").alias("month"))
        .agg(pl.col("co2").mean().round(3).alias("co2_ppm"))
        .filter(pl.col("month") >= FIRST_WITHOUT_GAPS)
        .sort("month")
    )
    monthly.write_csv(Path(__file__).with_name("co2_monthly.csv"))
