"""The README as a package index shows it: its links and pictures lead to the repository, or aren't there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"!\[[^\]]*\]\((?!\w+:)([^)]+)\)\n*")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:)([^)]+)\)")


def for_index(text: str, repository: str | None) -> str:
    """A README's text for a page that has no files beside it.

    Arguments:
        repository: the address under which its files are shown, as ``https://host/owner/name``; None: relative
            pictures are left out, and of relative links the words stay.
    """
    if repository is None:
        return _LINK.sub(r"\1", _PICTURE.sub("", text))
    base = repository.rstrip("/")
    text = re.sub(r"(!\[[^\]]*\])\((?!\w+:)([^)]+\.svg)\)", rf"\1({base}/raw/HEAD/\2?sanitize=true)", text)
    text = re.sub(r"(!\[[^\]]*\])\((?!\w+:)([^)]+)\)", rf"\1({base}/raw/HEAD/\2)", text)
    return _LINK.sub(rf"[\1]({base}/blob/HEAD/\2)", text)


class ReadmeHook(MetadataHookInterface):
    """Gives the metadata its long description; ``TAPWISE_REPOSITORY`` is the repository's address."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        repository = os.environ.get("TAPWISE_REPOSITORY")
        metadata["readme"] = {"content-type": "text/markdown", "text": for_index(text, repository)}
        if repository:
            metadata["urls"] = {"Repository": repository}
