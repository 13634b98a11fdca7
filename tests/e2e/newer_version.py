"""`coreplane` as a next version would be: it folds change requests of version 2, too, and writes them when it is told to."""

from __future__ import annotations

import os

from controlplane.cli.program import main
from controlplane.domain import requests
from controlplane.runtime import replica

NEXT = 2

if __name__ == "__main__":
    requests.READABLE = frozenset({1, NEXT})  # type: ignore[misc]
    if os.environ.get("WRITES") == str(NEXT):
        replica.VERSION = NEXT  # type: ignore[misc]
    main()
