"""`trioreg gc` again and again in one process: the same command, started once.

Arguments are those of the command. A byte on standard input lets collections follow each other without a
pause, the next byte ends that; the end of the input ends the process. On standard output each collection
writes its report, and a pause an empty line.
"""

from __future__ import annotations

import os
import select
import sys

from trioreg.cli import main


def serve(arguments: list[str]) -> int:
    """The exit code of the first collection that failed, or 0."""
    while os.read(0, 1):
        while True:
            if code := main(["gc", "--json", *arguments]):
                return code
            if select.select([0], [], [], 0)[0]:
                break
        os.read(0, 1)
        sys.stdout.write("\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:]))
