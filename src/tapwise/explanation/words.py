"""Words: the sentences that figures, text and the page share, from ``page/words.json``."""

from __future__ import annotations

import json
from importlib.resources import files

WORDS: dict[str, str] = json.loads((files("tapwise.explanation") / "page" / "words.json").read_text(encoding="utf-8"))


def phrase(name: str, **values: object) -> str:
    """The sentence of that name, with values in it.

    Example:
        >>> phrase("more_channels", n=3)
        '... 3 more channels ...'
    """
    return WORDS[name].format(**values)
