"""plans: what ``tapwise.tune`` measured, in files.

Measured plans are used in this process at once, and by later ones: they stand in the file that ``path()`` names.
``TAPWISE_PLANS`` names another, or none where it is empty. With the same file, the same problem has the same plan.
"""

from __future__ import annotations

import os
from pathlib import Path

from tapwise.engine import dispatch, measured


def path() -> Path | None:
    """The file that processes read and ``tune`` adds to; None where ``TAPWISE_PLANS`` is empty, or there is no home."""
    return measured.path()


def save(path: str | os.PathLike[str]) -> int:
    """Add the plans that are in force to a file, which ``load`` reads; plans of other machines in it stay.

    Returns:
        How many problems were measured.

    Raises:
        ValueError: a file that holds something else.

    Example:
        >>> import os, tempfile, torch, tapwise as tw
        >>> tuning = tw.tune(torch.nn.Conv1d(1, 1, 31), torch.randn(1, 1, 20_000), save=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     n = tw.plans.save(os.path.join(folder, "plans.json"))
        >>> n >= 1
        True
    """
    found = measured.everything()
    measured.write(Path(path), found, measured.factors())
    return len(found)


def load(path: str | os.PathLike[str]) -> int:
    """Use the plans of a file in this process, those that were measured on this machine with these versions, and its rates.

    Returns:
        How many there are: 0 for a file of another machine alone.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that holds something else.
    """
    found, factors = measured.read(Path(path))
    measured.add(found, factors)
    dispatch.forget()
    return len(found)


def clear() -> None:
    """Predict all plans of this process: no measured plan is used until some are loaded or tuned. Files stay."""
    measured.forget()
    dispatch.forget()
