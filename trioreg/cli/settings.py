"""`trioreg config`: the effective settings, and the table of them all."""

from __future__ import annotations

import argparse
import sys

from trioreg.cli.command import Commands, add_command
from trioreg.config import SETTINGS, describe, find


def add(commands: Commands) -> None:
    command = add_command(commands, "config", "show the effective settings and where each comes from", _run)
    command.add_argument("--markdown", action="store_true", help="print the table of docs/configuration.md")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.markdown:
        sys.stdout.write(settings_as_markdown())
        return 0
    found = find(arguments.options, arguments.environ, arguments.config)
    rows = [
        (setting.name, setting.kind.show(value) or '""', source)
        for setting, (value, source) in zip(SETTINGS, found.values(), strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")
    return 0


def settings_as_markdown() -> str:
    """The table of settings as docs/configuration.md shows it."""
    lines = ["| setting | variable | option | kind | default | what it does |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for row in describe():
        names = [_code(row.name), _code(row.variable), _code(row.option)]
        lines.append("| " + " | ".join([*names, row.kind, _code(row.default), row.help]) + " |")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    return f"`{text}`" if text else "–"
