"""Where references to secrets lead, and where they may not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from controlplane.runtime.secrets import EnvironmentSecrets, fingerprint_key
from reconcilers.contract import SecretNotFound
from schemas.secret import SecretRef


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory with a secret, the daemon's own key beside it, and a file of the machine outside."""
    data = tmp_path / "data"
    (data / "secrets" / "mount" / "..2026").mkdir(parents=True)
    (data / "secrets" / "app").write_text("s\n")
    (data / "secrets" / "mount" / "..2026" / "password").write_text("mounted")
    (data / "secrets" / "mount" / "password").symlink_to("..2026/password")
    (data / "fingerprint.key").write_text("key")
    (tmp_path / "outside").write_text("machine's")
    (data / "secrets" / "link").symlink_to(tmp_path / "outside")
    (data / "secrets-not").mkdir()
    (data / "secrets-not" / "x").write_text("x")
    return data


def revealed(data_dir: Path, name: str, directories: Sequence[Path] | None = (Path("secrets"),)) -> str | None:
    try:
        return EnvironmentSecrets(data_dir, b"k", directories=directories).reveal(SecretRef(from_file=name))
    except SecretNotFound:
        return None


def test_files_in_the_directory_are_found_also_behind_links_within(data_dir: Path) -> None:
    assert revealed(data_dir, "secrets/app") == "s"
    assert revealed(data_dir, "secrets/mount/password") == "mounted"
    assert revealed(data_dir, str(data_dir / "secrets" / "app")) == "s"


def test_nothing_outside_of_the_directories_is_read(data_dir: Path) -> None:
    for name in (
        "../outside",
        "secrets/../../outside",
        "secrets/../fingerprint.key",
        "fingerprint.key",
        "secrets/link",
        "secrets-not/x",
        str(data_dir.parent / "outside"),
        "/etc/passwd",
        "secrets",
        "secrets/app\0",
    ):
        assert revealed(data_dir, name) is None, name


def test_other_directories_may_be_named_and_none_means_anywhere(data_dir: Path) -> None:
    outside = str(data_dir.parent / "outside")
    assert revealed(data_dir, outside, (Path("secrets"), data_dir.parent)) == "machine's"
    assert revealed(data_dir, outside, None) == "machine's"
    assert revealed(data_dir, "secrets/app", ()) is None


@pytest.mark.parametrize(
    ("patterns", "found"),
    [(("*",), {"SHOP_PASSWORD", "AWS_SECRET_ACCESS_KEY"}), (("SHOP_*", "COREPLANE_*"), {"SHOP_PASSWORD"})],
)
def test_variables_are_found_by_glob_and_the_daemons_own_never_are(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, patterns: tuple[str, ...], found: set[str]
) -> None:
    secrets = EnvironmentSecrets(data_dir, b"k", environment=patterns)
    seen = set()
    for name in ("SHOP_PASSWORD", "AWS_SECRET_ACCESS_KEY", "COREPLANE_TOKEN", "COREPLANE_LOG_PASSWORD"):
        monkeypatch.setenv(name, "v")
        with suppress(SecretNotFound):
            assert secrets.reveal(SecretRef(from_env=name)) == "v"
            seen.add(name)
    assert seen == found


def test_replicas_that_are_given_one_key_make_the_same_fingerprints(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 32 + "\n")
    (tmp_path / "short").write_text("k")
    named = SecretRef(from_file=str(tmp_path / "key"))
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        keys = (fingerprint_key(tmp_path / name), fingerprint_key(tmp_path / name, named))
        made.append([EnvironmentSecrets(tmp_path / name, key).fingerprint("secret") for key in keys])
    assert made[0][1] == made[1][1]
    assert made[0][0] != made[1][0]
    for wrong, told in (("short", "1 bytes"), ("nowhere", "not found")):
        with pytest.raises(ValueError, match=told):
            fingerprint_key(tmp_path, SecretRef(from_file=str(tmp_path / wrong)))


# --- whose they are ----------------------------------------------------------------------------------------------------


def permitted(data_dir: Path, tenant: str, directories: Sequence[Path] | None = (Path("secrets"),), **ref: str) -> bool:
    return EnvironmentSecrets(data_dir, b"k", directories=directories).permits(tenant, SecretRef(**ref))


def test_a_tenant_names_the_files_of_its_own_folder_and_no_others(data_dir: Path) -> None:
    own = data_dir / "secrets" / "tenants" / "acme"
    own.mkdir(parents=True)
    (own / "password").write_text("a")
    (own / "others").symlink_to(data_dir / "secrets" / "app")
    assert permitted(data_dir, "acme", from_file="secrets/tenants/acme/password")
    assert permitted(data_dir, "acme", from_file=str(own / "password"))
    for name in (
        "secrets/app",
        "secrets/tenants/acme/../../app",
        "secrets/tenants/acme/others",
        "secrets/tenants/acme2/password",
        "fingerprint.key",
        "secrets/tenants/acme/\0",
    ):
        assert not permitted(data_dir, "acme", from_file=name), name
    assert not permitted(data_dir, "other", from_file="secrets/tenants/acme/password")
    assert not permitted(data_dir, "acme", from_env="SHOP_PASSWORD")


def test_the_default_tenant_has_all_but_the_folders_of_the_others(data_dir: Path) -> None:
    for name in ("secrets/app", "secrets/mount/password", "secrets/tenants-not/x"):
        assert permitted(data_dir, "default", from_file=name), name
    for name in (
        "secrets/tenants/acme/password",
        "secrets/mount/../tenants/acme/password",
        "secrets/tenants/default/x",
    ):
        assert not permitted(data_dir, "default", from_file=name), name
    assert permitted(data_dir, "default", from_env="SHOP_PASSWORD")


def test_where_nothing_is_bounded_everybodys_secrets_are_everybodys(data_dir: Path) -> None:
    for tenant in ("default", "acme"):
        assert permitted(data_dir, tenant, None, from_file="secrets/tenants/other/x")
        assert permitted(data_dir, tenant, None, from_env="X")
