"""Users: values in, steps out."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from reconcilers.cache import acl
from reconcilers.cache.acl import Account, Permissions
from reconcilers.cache.model import ObservedUser
from reconcilers.cache.plan import plan_user
from reconcilers.cache.steps import DropUser, SetUser
from reconcilers.contract import CONVERGED, ExternalId
from reconcilers.planning import Nodes
from schemas.cache import RedisUser

ALICE = ExternalId("cache.redis_user", "alice")
FORM = Account(
    enabled=True,
    nopass=False,
    passwords=frozenset({"f1"}),
    root=Permissions("-@all +get", ("~app:*",), ()),
    selectors=(),
)


def user(**fields):
    value = {"target": "main", "commands": ["+get"], "keys": ["app:*"], "passwords": [{"from_env": "A"}], **fields}
    return acl.declared("alice", RedisUser.model_validate(value))


def observed(held, wanted=FORM, *, lockout=None, silent=None):
    nodes = held if isinstance(held, dict) else {"n1": held}
    return ObservedUser(Nodes(nodes, silent or {}), dict.fromkeys(nodes, wanted), lockout)


def test_an_absent_user_is_set_and_the_difference_names_it():
    plan = plan_user(ALICE, user(), None, 0)
    assert plan.steps == (SetUser(ALICE, user()),)
    assert [(d.path, d.desired, d.observed) for d in plan.differences] == [("/username", "alice", None)]


def test_a_user_that_is_as_declared_is_left_alone():
    assert plan_user(ALICE, user(), observed(FORM), 0) == CONVERGED


def test_retiring_a_user_that_is_gone_does_nothing():
    assert plan_user(ALICE, None, None, 0) == CONVERGED


def test_a_retired_user_is_dropped_where_it_is():
    seen = ObservedUser(Nodes({"n1": FORM, "n2": None}))
    assert plan_user(ALICE, None, seen, 0).steps == (DropUser(ALICE, ("n1",)),)


def test_the_default_user_is_never_dropped():
    default = ExternalId("cache.redis_user", "default")
    plan = plan_user(default, None, ObservedUser(Nodes({"n1": FORM})), 0)
    assert not plan.steps
    assert plan.blocked is not None
    assert plan.blocked.reason == "DefaultUser"


def test_the_daemons_own_user_is_never_dropped():
    plan = plan_user(ALICE, None, ObservedUser(Nodes({"n1": FORM}), lockout="it would be gone"), 0)
    assert not plan.steps
    assert plan.blocked is not None
    assert plan.blocked.reason == "SelfLockout"


def test_the_daemon_does_not_lock_itself_out_but_says_what_differs():
    held = replace(FORM, root=Permissions("+@all", ("~*",), ()))
    plan = plan_user(ALICE, user(), observed(held, lockout="it couldn't run CONFIG SET"), 0)
    assert not plan.steps
    assert plan.blocked is not None
    assert "CONFIG SET" in plan.blocked.message
    assert {d.path for d in plan.differences} == {"/commands", "/keys"}


def test_its_own_user_may_be_as_declared_even_if_it_could_not_go_on():
    assert plan_user(ALICE, user(), observed(FORM, lockout="anything"), 0) == CONVERGED


@pytest.mark.parametrize(
    ("held", "kill"),
    [
        (replace(FORM, enabled=False), False),
        (replace(FORM, passwords=frozenset()), False),
        (replace(FORM, passwords=frozenset({"f0", "f1"})), True),
        (replace(FORM, passwords=frozenset({"f0"})), True),
        (replace(FORM, nopass=True), True),
        (replace(FORM, root=Permissions("-@all +get +set", ("~app:*",), ())), True),
        (replace(FORM, root=Permissions("+@all", ("~app:*",), ())), True),
        (replace(FORM, root=Permissions("-@all +get", ("~*",), ())), True),
        (replace(FORM, root=Permissions("-@all +get", ("~app:*",), ("&*",))), True),
        (replace(FORM, root=Permissions("-@all +get", (), ())), False),
        (replace(FORM, root=Permissions("-@all", ("~app:*",), ())), False),
        (replace(FORM, selectors=(Permissions("-@all +set", (), ()),)), True),
    ],
)
def test_sessions_end_only_when_something_is_taken_away(held, kill):
    assert plan_user(ALICE, user(), observed(held), 0).steps == (SetUser(ALICE, user(), ("n1",), kill),)


def test_a_disabled_user_loses_its_sessions():
    wanted = replace(FORM, enabled=False)
    (step,) = plan_user(ALICE, user(enabled=False), observed(FORM, wanted), 0).steps
    assert isinstance(step, SetUser)
    assert step.kill


def test_sessions_stay_when_that_is_declared():
    held = replace(FORM, passwords=frozenset({"f0"}))
    (step,) = plan_user(ALICE, user(kill_on_revoke=False), observed(held), 0).steps
    assert isinstance(step, SetUser)
    assert not step.kill


def test_only_the_node_that_differs_is_set_and_named():
    plan = plan_user(ALICE, user(), observed({"n1": FORM, "n2": replace(FORM, enabled=False)}), 0)
    assert plan.steps == (SetUser(ALICE, user(), ("n2",)),)
    assert [d.path for d in plan.differences] == ["/enabled@n2"]


def test_a_silent_node_is_waited_for_and_the_others_are_driven():
    acting = plan_user(ALICE, user(), observed(replace(FORM, enabled=False), silent={"n2": "refused"}), 0)
    assert acting.steps == (SetUser(ALICE, user(), ("n1",)),)
    waiting = plan_user(ALICE, user(), observed(FORM, silent={"n2": "refused"}), 0)
    assert not waiting.converged
    assert "n2: refused" in str(waiting.wait_reason)


def test_a_setting_without_passwords_leaves_them_to_others():
    assert user().passwords is not None
    value = RedisUser.model_validate({"target": "main"})
    assert acl.declared("alice", value).passwords is None


def test_no_step_shows_a_secret():
    details = SetUser(ALICE, user()).details()
    assert details["passwords"] == ["from_env: A"]


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def test_both_descriptions_of_a_user_mean_the_same():
    line = "user a on sanitize-payload #aa #bb ~app:* %R~ro:* resetchannels &n.* -@all +set +get (~x:* resetchannels -@all +set)"
    reply = {
        "flags": ["on", "sanitize-payload"],
        "passwords": ["bb", "aa"],
        "commands": "-@all +get +set",
        "keys": "%R~ro:* ~app:*",
        "channels": "&n.*",
        "selectors": [{"commands": "-@all +set", "keys": "~x:*", "channels": ""}],
    }
    assert acl.named_account(line, digest) == ("a", acl.account_of_reply(reply, digest))


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("-@all +get +set", "-@all +set +get", True),
        ("-@all +@read -get", "-@all -get +@read", False),
        ("+@all -get -set", "+@all -set -get", True),
    ],
)
def test_the_order_of_commands_counts_only_where_signs_change(one, other, equal):
    first, second = (acl.account(["on", *text.split()], digest) for text in (one, other))
    assert (first == second) is equal
