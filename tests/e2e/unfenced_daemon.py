"""`coreplane` with its fence broken on purpose: no two writers of a shard ever have the same transactional id.

Only to show that the checker of the fault suite notices.
"""

from __future__ import annotations

import uuid

from controlplane.cli.program import main
from controlplane.log.kafka_address import Address

if __name__ == "__main__":
    Address.transactional_id = lambda self, shard: f"{self.prefix}-{shard}-{uuid.uuid4()}"  # type: ignore[method-assign]
    main()
