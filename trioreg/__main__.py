"""`python -m trioreg` is the command `trioreg`."""

from trioreg.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
