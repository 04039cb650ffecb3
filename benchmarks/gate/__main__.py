"""`make gate`: see `main`."""

from __future__ import annotations

import sys

from sshr_deploy.benchmarks.gate.run import main

if __name__ == "__main__":
    sys.exit(main())
