"""`python -m sshr_deploy`, and where the `sshr-deploy` command begins."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it loads ends in one line too."""
    try:
        from sshr_deploy.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("sshr-deploy: interrupted\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
