"""Free ports of the loopback interface, remembered between runs in `<data>/devstack.json`."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, Final

import psutil

NAME: Final = "devstack.json"
LOOPBACK: Final = "127.0.0.1"


def is_free(port: int) -> bool:
    """Nobody listens there. It may be taken a moment later: whoever binds it must be ready for that."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier server that linger in TIME_WAIT don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def any_free() -> int:
    """A port that the system deems free."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


def free_or_any(known: int) -> int:
    """The port that is known if it is one and free, else any."""
    return known if known and is_free(known) else any_free()


def listener(port: int) -> int:
    """The pid of the process that listens there; EOFError when the system doesn't tell of one."""
    for connection in psutil.net_connections("tcp"):
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
        if listens and connection.pid:
            return connection.pid
    msg = f"nobody of ours listens on port {port}"
    raise EOFError(msg)


class PortBook:
    """Which backend had which port, so that its URL stays the same from run to run while that is possible."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / NAME

    def choose(self, name: str, preferred: int) -> int:
        """The remembered port if it is free, else the preferred one, else any; the choice is remembered."""
        content = self._read()
        ports = content.setdefault("ports", {})
        wished = [port for port in (ports.get(name), preferred) if isinstance(port, int)]
        others = {port for other, port in ports.items() if other != name}
        port = next((port for port in wished if port not in others and is_free(port)), None)
        ports[name] = any_free() if port is None else port
        self._write(content)
        return int(ports[name])

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}  # a convenience: without it the ports are chosen anew
        return content if isinstance(content, dict) and isinstance(content.get("ports", {}), dict) else {}

    def _write(self, content: dict[str, Any]) -> None:
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        draft.replace(self._path)
