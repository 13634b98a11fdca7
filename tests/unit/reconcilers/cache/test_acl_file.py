"""Redis ACL files as declarations of users."""

from __future__ import annotations

import pytest

from reconcilers.cache.acl_file import REDIS_ACL
from reconcilers.cache.acl_file import read as read_file
from schemas.cache import RedisUser


def read(text):
    return read_file(text, "users")


TABLE = [
    ("user a on nopass ~* &* +@all", {"nopass": True, "commands": ["+@all"], "keys": ["*"], "channels": ["*"]}),
    ("user a", {"enabled": False}),
    ("user a on allkeys allchannels allcommands", {"commands": ["+@all"], "keys": ["*"], "channels": ["*"]}),
    ("user a on ~a:* %R~b:* &n.* -@all +@read -sort", {
        "commands": ["+@read", "-sort"], "keys": ["a:*", "%R~b:*"], "channels": ["n.*"]}),
    ("user a on ~x resetkeys ~y +get nocommands +set", {"commands": ["+set"], "keys": ["y"]}),
    ("user a on +get reset on +set", {"commands": ["+set"]}),
    ("user a on (~x:* +set) clearselectors (%R~y +get)", {"selectors": ["(%R~y +get)"]}),
    ("user app:web on +get", {"username": "app:web", "commands": ["+get"]}),
    ("user a ON NOPASS resetpass +get", {"commands": ["+get"]}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "value"), TABLE)
def test_a_line_is_read_as_the_server_reads_it(line, value):
    ((setting_type, found),) = read(line)
    assert (setting_type, dict(found.value), found.fill_in) == ("cache.redis_user", value, {})
    RedisUser.model_validate({"target": "main", **found.value})


@pytest.mark.parametrize("password", [">hunter2", "#" + "ab" * 32])
def test_passwords_are_asked_for_and_never_repeated(password):
    ((_, found),) = read(f"user a on {password} +get")
    assert "passwords" not in found.value
    assert "from_file" in found.fill_in["/passwords"]
    assert password[1:] not in repr(found)


def test_a_password_that_is_taken_back_leaves_nothing_to_fill_in():
    ((_, found),) = read("user a on >one >two <one <two +get")
    assert found.fill_in == {}


def test_what_cant_be_declared_says_so():
    ((_, found),) = read("user a on skip-sanitize-payload +get")
    assert "skip-sanitize-payload" in found.undeclarable


def test_an_unknown_rule_is_told_with_its_line_but_not_in_full():
    with pytest.raises(ValueError, match="line 2, user b: the rule h…") as refused:
        read("user a on\nuser b on hunter2")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "mine"),
    [
        ("# a comment\n\nuser a on +get\n", True),
        ("port 6379\nuser a on +get\n", True),
        ("maxmemory 1gb\n", False),
        ("kind: KafkaUser\nspec: {user: a}\n", False),
        ('{"user": "a"}', False),
    ],
)
def test_an_acl_file_is_recognised(text, mine):
    assert REDIS_ACL.recognises(text) is mine
    assert bool(read(text)) is mine
