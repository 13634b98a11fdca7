"""`python -m controlplane` and the console script `coreplane`."""

from __future__ import annotations

from controlplane.cli.program import main

if __name__ == "__main__":
    main()
