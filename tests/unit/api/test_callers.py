from __future__ import annotations

import hashlib

import pytest

from controlplane.api.auth import Caller, Role, authorise, caller_of, check_binding, check_host, is_loopback
from controlplane.api.problems import STATUS
from controlplane.config import AuthConfig, Config, HttpConfig, Token
from controlplane.domain.errors import Reason, Refused

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


def test_the_secret_of_a_token_tells_who_calls() -> None:
    caller = caller_of(AUTH, {"Authorization": "bearer  s "})
    assert caller == Caller("ed", Role.EDITOR, ("a",))
    authorise(caller, Role.EDITOR, "a")
    for role, tenant in ((Role.ADMIN, "a"), (Role.VIEWER, "b")):
        with pytest.raises(Refused) as refused:
            authorise(caller, role, tenant)
        assert refused.value.reason is Reason.FORBIDDEN


def test_every_reason_has_a_status() -> None:
    assert set(STATUS) == set(Reason)
