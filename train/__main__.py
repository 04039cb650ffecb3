"""`torchrun ... -m sshr_deploy.train DATASET ...`: `sshr-deploy train` in each process."""

from __future__ import annotations

import sys

from sshr_deploy.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
