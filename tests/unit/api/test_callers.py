from __future__ import annotations

import hashlib
from typing import Any

import pytest

from controlplane.api.auth import authorise, caller_of, check_binding, check_host, is_loopback, is_required
from controlplane.api.problems import STATUS
from controlplane.config import AuthConfig, Config, HttpConfig, Token
from controlplane.domain.access import Caller, Grant, Role, beyond
from controlplane.domain.errors import Reason, Refused
from controlplane.domain.fold import State, fold
from controlplane.domain.requests import as_request
from controlplane.runtime.directory import Directory, in_effect
from schemas.access import Share

AUTH = AuthConfig(tokens=(Token(name="ed", sha256=hashlib.sha256(b"s").hexdigest(), role="editor", tenants=("a",)),))


def test_a_daemon_without_tokens_listens_on_loopback_only() -> None:
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        check_binding(Config(http=HttpConfig(host=host)))
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", ""):
        with pytest.raises(ValueError, match=r"auth\.tokens"):
            check_binding(Config(http=HttpConfig(host=host)))
        check_binding(Config(http=HttpConfig(host=host), auth=AUTH))


def test_names_that_only_look_like_loopback_are_not() -> None:
    assert [
        host for host in ("127.0.0.1.evil.org", "localhost.evil.org", "2130706433", "0x7f.1") if is_loopback(host)
    ] == []


def test_the_host_header_matters_only_while_there_is_no_authentication() -> None:
    check_host(AUTH, "example.org")
    check_host(AuthConfig(), "LOCALHOST:8470")
    with pytest.raises(Refused):
        check_host(AuthConfig(), "example.org:8470")


def called(auth: AuthConfig, directory: Directory, secret: str | None, now: float = 0.0) -> Caller:
    return caller_of(auth, directory, {} if secret is None else {"Authorization": f"Bearer {secret}"}, now)


def test_the_secret_of_a_token_tells_who_calls() -> None:
    caller = caller_of(AUTH, Directory(State(), ()), {"Authorization": "bearer  s "}, 0.0)
    assert caller == Caller("ed", (Grant(Role.EDITOR, ("a",)),))
    authorise(caller, Role.EDITOR, "a")
    for role, tenant in ((Role.ADMIN, "a"), (Role.VIEWER, "b")):
        with pytest.raises(Refused) as refused:
            authorise(caller, role, tenant)
        assert refused.value.reason is Reason.FORBIDDEN


class World:
    """A log of `access` settings, and the directory that follows it."""

    def __init__(self) -> None:
        self.state = State()
        self.directory = Directory(self.state, ("default",))

    def declare(self, key: str, value: Any) -> None:
        self._fold({"op": "declare", "key": key, "expected": None, "body": {"value": value}})

    def retire(self, key: str) -> None:
        self._fold({"op": "retire", "key": key, "expected": None})

    def token(self, key: str, secret: str, *grants: dict[str, Any], **more: Any) -> None:
        self.declare(key, {"sha256": hashlib.sha256(secret.encode()).hexdigest(), "grants": list(grants), **more})

    def _fold(self, change: dict[str, Any]) -> None:
        offset = self.state.position
        record = {"v": 1, "request_id": str(offset), "actor": "t", "at": "2026-01-01T00:00:00Z", "changes": [change]}
        request = as_request(offset, record)
        self.directory.follow(offset, request, fold(self.state, offset, request))


def test_a_token_of_the_log_is_good_until_it_expires_or_is_retired() -> None:
    world, auth = World(), AuthConfig(required=True)
    world.token("a/access.token/ci", "s", {"role": "editor"}, expires_at="2026-01-01T00:00:10Z")
    at = 1_767_225_600.0
    assert called(auth, world.directory, "s", at + 9).actor == "a/ci"
    for secret, now in (("s", at + 10), ("other", at), (None, at)):
        with pytest.raises(Refused):
            called(auth, world.directory, secret, now)
    world.retire("a/access.token/ci")
    with pytest.raises(Refused):
        called(auth, world.directory, "s", at)


def test_a_directory_that_is_loaded_knows_what_one_that_followed_knows() -> None:
    world = World()
    world.token("a/access.token/ci", "s", {"role": "editor"})
    world.token("a/access.token/gone", "gone", {"role": "editor"})
    world.declare("system/access.tenant/a", {"quotas": {"settings": 3}})
    world.declare("a/cache.target/x", {})
    world.retire("a/access.token/gone")
    loaded = Directory(world.state, ("default",))
    loaded.load()
    for directory in (world.directory, loaded):
        assert [known.key for known in directory.tokens()] == ["a/access.token/ci"]
        assert directory.tenants() == ("default", "a")
        assert directory.quotas("a").settings == 3
        assert (directory.settings_in("a"), directory.settings_in("system")) == (3, 1)


def test_only_the_systems_tokens_reach_beyond_their_tenant() -> None:
    world, auth = World(), AuthConfig(required=True)
    world.token("a/access.token/x", "x", {"role": "admin", "tenants": ["b", "*"]})
    world.token("system/access.token/y", "y", {"role": "viewer", "tenants": ["*"], "services": ["cache"]})
    x, y = called(auth, world.directory, "x"), called(auth, world.directory, "y")
    assert [x.sees(tenant) for tenant in ("a", "b", "system")] == [True, False, False]
    assert [y.sees(tenant) for tenant in ("a", "b", "system")] == [True, True, False]
    assert y.services_in("a", Role.VIEWER) == {"cache"}


def test_tenants_and_shares_count_in_the_system_alone() -> None:
    world = World()
    world.declare("a/access.tenant/b", {})
    world.declare("a/access.share/x", {"target": "b/cache.target/t", "tenant": "a", "prefix": "a."})
    assert not world.directory.has("b")
    assert world.directory.prefix("a", "b/cache.target/t") is None
    world.declare("system/access.share/x", {"target": "b/cache.target/t", "tenant": "a", "prefix": "a."})
    assert world.directory.prefix("a", "b/cache.target/t") == "a."


def test_of_two_shares_that_overlap_the_older_one_counts() -> None:
    target = "o/cache.target/t"
    shares = [
        Share(target=target, tenant=tenant, prefix=prefix)
        for tenant, prefix in (("a", "x."), ("b", "x.y."), ("c", "z."))
    ]
    assert in_effect(shares) == {("a", target): "x.", ("c", target): "z."}


def test_settings_of_access_are_for_admins_whatever_else_is_asked() -> None:
    for role, expected in ((Role.VIEWER, False), (Role.EDITOR, False), (Role.ADMIN, True)):
        caller = Caller("x", (Grant(role),))
        assert caller.may(Role.VIEWER, "a", "access") is expected
        assert caller.sees("system") is expected


def test_nobody_hands_on_more_than_they_hold() -> None:
    mine = Caller("x", (Grant(Role.ADMIN, ("a",), ("cache", "access")), Grant(Role.VIEWER, ("a", "b"))))
    for given in (
        Grant(Role.EDITOR, ("a",), ("cache",)),
        Grant(Role.VIEWER, ("b",)),
        Grant(Role.ADMIN, ("a",), ("access",)),
    ):
        assert beyond(mine, [given]) is None
    for given in (Grant(Role.ADMIN, ("a",)), Grant(Role.EDITOR, ("b",), ("cache",)), Grant(Role.VIEWER)):
        assert beyond(mine, [given]) == given


def test_tokens_are_needed_once_some_are_configured_or_when_it_is_said() -> None:
    assert [is_required(auth) for auth in (AuthConfig(), AUTH, AuthConfig(required=True))] == [False, True, True]


def test_every_reason_has_a_status() -> None:
    assert set(STATUS) == set(Reason)
