"""``python -m tapwise``: the command."""

from tapwise.cli import main

main()
