"""What a daemon has in memory: the clients of the services it doesn't serve aren't there."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("aiokafka", "kafka", "faust", "elasticsearch", "elastic_transport", "minio", "pymemcache", "cryptography.x509")
DAEMON = "import sys, controlplane.app, controlplane.cli.serving, controlplane.cli.daemon; print(*sys.modules)"


def test_an_embedded_daemon_without_targets_loads_no_client_of_a_service():
    loaded = subprocess.run([sys.executable, "-c", DAEMON], capture_output=True, text=True, check=True).stdout.split()
    assert "controlplane.log.sqlite" in loaded
    assert [name for name in loaded if name.startswith(tuple(f"{heavy}." for heavy in HEAVY)) or name in HEAVY] == []
