"""`python -m prefrl`."""

import sys

from prefrl.cli import main

if __name__ == "__main__":
    sys.exit(main())
