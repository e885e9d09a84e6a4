"""`trioreg info`: what runs here."""

from __future__ import annotations

import argparse
import sys

from trioreg.cli.command import Commands, add_command


def add(commands: Commands) -> None:
    text = "show what runs here: versions, and the digest engine that was chosen"
    add_command(commands, "info", text, _run, settings=False)


def _run(_arguments: argparse.Namespace) -> int:
    from trioreg.server.info import describe

    rows = describe()
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        sys.stdout.write(f"{name:<{width}}  {text}\n")
    return 0
