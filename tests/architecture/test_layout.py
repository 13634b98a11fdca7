"""The top of the tree is fixed, and one word names a service everywhere."""

from __future__ import annotations

import subprocess
from pathlib import Path

from schemas.kinds import KINDS
from schemas.names import SERVICES

ROOT = Path(__file__).parents[2]
TOP = {"controlplane", "reconcilers", "schemas", "tests", "helm", "pyproject.toml", "README.md", "LICENSE"}


def test_nothing_else_lies_at_the_top():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    tops = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in tops - TOP if not name.startswith(".")} == set()


def test_every_kind_belongs_to_a_service_and_every_reconciler_is_one():
    assert {kind.partition(".")[0] for kind in KINDS} <= set(SERVICES)
    folders = {path.parent.name for path in (ROOT / "reconcilers").glob("*/__init__.py")}
    assert folders <= set(SERVICES)


def test_every_service_with_kinds_has_its_target_among_them():
    services = {kind.partition(".")[0] for kind in KINDS}
    assert {f"{service}.target" for service in services} <= KINDS.keys()


def test_test_files_have_telling_names_of_their_own():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []
