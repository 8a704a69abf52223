"""`python -m clip_viewer RUN --name NAME`: the same as `prefrl rate`."""

from __future__ import annotations

import sys

from prefrl.cli import main

if __name__ == "__main__":
    sys.exit(main(["rate", *sys.argv[1:]]))
