"""Generated passwords."""

from __future__ import annotations

from pathlib import Path

from controlplane.devstack import secrets, shop


def test_a_secret_is_made_once_and_belongs_to_its_owner_alone(tmp_path: Path):
    made = secrets.ensure(tmp_path, "admin")
    assert len(made) >= secrets.BYTES
    assert secrets.ensure(tmp_path, "admin") == made
    assert (tmp_path / "secrets/admin").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_two_secrets_differ(tmp_path: Path):
    assert secrets.ensure(tmp_path, "one") != secrets.ensure(tmp_path, "two")


def test_every_secret_of_the_example_is_made(tmp_path: Path):
    shop.make_secrets(tmp_path)
    text = "".join(path.read_text() for path in shop.EXAMPLES)
    made = {path.name for path in (tmp_path / "secrets").iterdir()}
    assert len(made) > 4
    assert all(f"from_file: secrets/{name}" in text for name in made)
