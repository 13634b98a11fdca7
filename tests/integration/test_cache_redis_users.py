"""ACL users on a real Redis."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Disconnected

from reconcilers.cache.redis_users import FEW, observe_users
from reconcilers.contract import ExternalId, Result, TerminalError
from schemas.cache import SCRATCH_USER_PREFIX
from tests.integration.backend_world import KINDS, ClosedFence, DictSecrets
from tests.integration.cache_world import world

pytestmark = pytest.mark.integration

USER = "cache.redis_user"
FULL = {
    "commands": ["+@read", "-@dangerous", "+config|get"],
    "keys": ["app:*", "%R~ro:*", "%RW~both:*"],
    "channels": ["news.*"],
    "selectors": ["(+set ~x:* &c)"],
    "passwords": [{"from_env": "A"}],
}
SPELLINGS = [
    {},
    {"enabled": False},
    FULL,
    {"nopass": True, "keys": ["*"], "channels": ["*"], "commands": ["allcommands"]},
    {"passwords": [{"from_env": "A"}, {"from_env": "B"}]},
    {"commands": ["+@all", "-@dangerous", "-get"]},
    {"commands": ["+GET", "+Set", "-@ALL", "+ping"]},
    {"commands": ["+select|0"]},
    {"keys": ["b:*", "a:*", "%W~w:*", "foo(bar"]},
    {"selectors": ["(~b:* +get)", "(+set ~a:*)", "(%R~r:* -@all +@read)"]},
    {"commands": ["nocommands"], "passwords": []},
]


def secrets():
    return DictSecrets(A="first secret", B="second secret")


@pytest.fixture
async def redis(redis_server):
    client = Redis.from_url(redis_server.url, socket_timeout=5)
    yield client
    await client.aclose()


async def users(redis):
    return {name.decode() for name in await redis.execute_command("ACL", "USERS")}


async def writes(redis):
    rows = await redis.info("commandstats")
    names = ("cmdstat_acl|setuser", "cmdstat_acl|deluser", "cmdstat_config|set", "cmdstat_multi")
    return [rows.get(name, {}).get("calls", 0) for name in names]


@pytest.mark.parametrize("value", SPELLINGS)
async def test_every_spelling_of_a_user_converges_at_once(redis_server, redis, value):
    async with world(redis_server.url, secrets=secrets()) as target:
        (outcome,) = await target.declare(USER, value, "u")
        assert outcome.result is Result.SUCCEEDED
        again = await target.look(USER, value, "u")
        assert (again.converged, again.differences) == (True, ())
        assert not {name for name in await users(redis) if name.startswith(SCRATCH_USER_PREFIX)}


async def test_the_list_and_the_single_answer_describe_every_user_alike(redis_server):
    async with world(redis_server.url, secrets=secrets()) as target:
        for index, value in enumerate(SPELLINGS):
            await target.declare(USER, value, f"u{index}")
        node = target.backend.nodes[0]
        names = {f"u{index}": None for index in range(len(SPELLINGS))}
        many = names | {f"absent{index}": None for index in range(FEW)}
        login = target.backend._login
        one_by_one = {name: (await observe_users(node, {name: None}, login))[name].held for name in names}
        listed = {name: found.held for name, found in (await observe_users(node, many, login)).items() if name in names}
        assert one_by_one == listed
        assert None not in listed.values()


async def test_an_idle_look_writes_nothing(redis_server, redis):
    async with world(redis_server.url, secrets=secrets()) as target:
        await target.declare(USER, FULL, "u")
        await target.look(USER, FULL, "u")
        before = await writes(redis)
        for _ in range(3):
            assert (await target.look(USER, FULL, "u")).converged
        assert await writes(redis) == before


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (["off"], "/enabled"),
        ([">other"], "/passwords"),
        (["resetpass"], "/passwords"),
        (["nopass"], "/nopass"),
        (["+set"], "/commands"),
        (["~more:*"], "/keys"),
        (["&more"], "/channels"),
        (["(+del ~y:*)"], "/selectors"),
        (["skip-sanitize-payload"], "/commands"),
    ],
)
async def test_what_somebody_changed_is_named_and_put_right(redis_server, redis, change, path):
    async with world(redis_server.url, secrets=secrets()) as target:
        await target.declare(USER, FULL, "u")
        await redis.execute_command("ACL", "SETUSER", "u", *change)
        plan = await target.look(USER, FULL, "u")
        assert path in {difference.path for difference in plan.differences}
        await target.take(plan)
        assert (await target.look(USER, FULL, "u")).converged


async def test_a_user_deleted_by_hand_comes_back_and_a_retired_one_goes(redis_server, redis):
    async with world(redis_server.url, secrets=secrets()) as target:
        await target.declare(USER, FULL, "u")
        await redis.execute_command("ACL", "DELUSER", "u")
        plan = await target.look(USER, FULL, "u")
        assert [(d.path, d.desired, d.observed) for d in plan.differences] == [("/username", "u", None)]
        await target.take(plan)
        assert "u" in await users(redis)
        await target.take(await target.look(USER, FULL, "u", retiring=True))
        assert "u" not in await users(redis)
        assert (await target.look(USER, FULL, "u", retiring=True)).converged


async def test_a_password_taken_away_ends_the_sessions_that_used_it(redis_server):
    async with world(redis_server.url, secrets=secrets()) as target:
        both = {"commands": ["+ping"], "passwords": [{"from_env": "A"}, {"from_env": "B"}]}
        await target.declare(USER, both, "u")
        session = Redis.from_url(redis_server.url, username="u", password="first secret", socket_timeout=5, retry=None)
        connection = await session.connection_pool.get_connection()
        await connection.send_command("PING")
        assert await connection.read_response() == b"PONG"
        (outcome,) = await target.declare(USER, {**both, "passwords": [{"from_env": "B"}]}, "u")
        assert outcome.details["sessions_ended"] == 1
        with pytest.raises((Disconnected, OSError)):
            await connection.read_response()
        await connection.disconnect()
        await session.aclose()


async def test_passwords_that_are_not_declared_stay(redis_server, redis):
    async with world(redis_server.url) as target:
        await redis.execute_command("ACL", "SETUSER", "u", "on", ">theirs", "+get")
        await target.declare(USER, {"commands": ["+ping"]}, "u")
        account = await redis.acl_getuser("u")
        assert account["passwords"]
        assert account["commands"] == ["-@all", "+ping"] or "+ping" in str(account["commands"])
        assert (await target.look(USER, {"commands": ["+ping"]}, "u")).converged


async def test_channels_are_not_given_away_by_the_servers_default(redis_server, redis):
    await redis.config_set("acl-pubsub-default", "allchannels")
    async with world(redis_server.url) as target:
        await target.declare(USER, {"commands": ["+subscribe"]}, "u")
        assert b"&*" not in next(line for line in await redis.execute_command("ACL", "LIST") if b" u " in line)
        assert (await target.look(USER, {"commands": ["+subscribe"]}, "u")).converged


@pytest.mark.parametrize("there", [False, True])
async def test_a_rule_that_the_server_does_not_know_is_said_in_its_words(redis_server, redis, there):
    if there:
        await redis.execute_command("ACL", "SETUSER", "u")
    async with world(redis_server.url) as target:
        with pytest.raises(TerminalError, match="nosuch") as caught:
            await target.look(USER, {"commands": ["+nosuch"]}, "u")
        assert caught.value.reason == "InvalidRule"
        assert ("u" in await users(redis)) is there


async def test_a_bad_user_in_a_batch_does_not_touch_the_others(redis_server, redis):
    async with world(redis_server.url) as target:
        good, bad = [await target.look(USER, {"commands": ["+ping"]}, name) for name in ("good", "bad")]
        broken = replace(bad.steps[0], user=replace(bad.steps[0].user, rules=("+nosuch",)))
        outcomes = await target.backend.apply([broken, good.steps[0]], target.fence)
        assert [outcome.result for outcome in outcomes] == [Result.FAILED, Result.SUCCEEDED]
        assert outcomes[0].error.reason == "InvalidRule"
        assert "good" in await users(redis)
        assert "bad" not in await users(redis)


async def test_the_daemon_does_not_lock_itself_out(redis_server, redis):
    await redis.execute_command("ACL", "SETUSER", "ops", "on", ">first secret", "+@all", "~*", "&*")
    mine = {"username": "ops", "password": {"from_env": "A"}}
    narrow = {"commands": ["+acl", "+info"], "passwords": [{"from_env": "A"}]}
    enough = {
        "commands": ["+acl", "+info", "+config", "+client", "+multi", "+exec", "+slowlog", "+ping"],
        "passwords": [{"from_env": "A"}, {"from_env": "B"}],
    }
    async with world(redis_server.url, secrets=secrets(), **mine) as target:
        for value, why in [
            (narrow, "CONFIG SET"),
            ({**enough, "enabled": False}, "disabled"),
            ({**enough, "passwords": [{"from_env": "B"}]}, "password"),
        ]:
            plan = await target.look(USER, value, "ops")
            assert not plan.steps
            assert plan.blocked.reason == "SelfLockout"
            assert why in plan.blocked.message
        retiring = await target.look(USER, enough, "ops", retiring=True)
        assert retiring.blocked.reason == "SelfLockout"
        (outcome,) = await target.declare(USER, enough, "ops")
        assert outcome.result is Result.SUCCEEDED
        assert (await target.look(USER, enough, "ops")).converged


async def test_nothing_is_sent_once_the_fence_is_closed(redis_server, redis):
    async with world(redis_server.url) as target:
        target.fence = ClosedFence()
        (outcome,) = await target.declare(USER, {"commands": ["+ping"]}, "u")
        assert outcome.result is Result.NOT_SENT
        assert "u" not in await users(redis)


async def test_left_over_scratch_users_are_swept(redis_server, redis):
    left = f"{SCRATCH_USER_PREFIX}9"
    await redis.execute_command("ACL", "SETUSER", left)
    async with world(redis_server.url):
        assert left not in await users(redis)


async def test_a_thousand_users_converge_in_two_looks(redis_server, redis):
    kind = KINDS[USER]
    models = {
        f"u{index}": kind.value.model_validate({"target": "t", "commands": ["+@read"], "keys": [f"k{index}:*"]})
        for index in range(1000)
    }
    desired = {ExternalId(USER, name): kind.desired(name, value) for name, value in models.items()}
    async with world(redis_server.url) as target:
        found = await target.backend.observe(desired)
        steps = [kind.plan(external, want, found.get(external), 0.0).steps[0] for external, want in desired.items()]
        assert {outcome.result for outcome in await target.backend.apply(steps, target.fence)} == {Result.SUCCEEDED}
        found = await target.backend.observe(desired)
        assert all(kind.plan(external, want, found.get(external), 0.0).converged for external, want in desired.items())
        assert models.keys() <= await users(redis)


async def test_users_are_saved_when_the_target_says_so(redis_server, redis):
    async with world(redis_server.url, save_acl=True) as target:
        await target.declare(USER, {"commands": ["+ping"]}, "kept")
    await redis_server.kill()
    await redis_server.restart()
    await redis.connection_pool.disconnect()
    assert "kept" in await users(redis)


async def test_a_wrong_password_is_said_as_such(redis_server):
    with pytest.raises(TerminalError) as caught:
        async with world(redis_server.url, secrets=secrets(), username="nobody", password={"from_env": "A"}):
            raise AssertionError
    assert caught.value.reason == "AuthenticationFailed"


async def test_a_login_that_may_not_administer_says_which_command(redis_server, redis):
    await redis.execute_command("ACL", "SETUSER", "weak", "on", ">first secret", "+info", "+client", "+acl|users")
    login = {"username": "weak", "password": {"from_env": "A"}}
    async with world(redis_server.url, secrets=secrets(), **login) as target:
        with pytest.raises(TerminalError, match=r"acl\|getuser") as caught:
            await target.look(USER, {}, "u")
        assert caught.value.reason == "PermissionDenied"
        with pytest.raises(TerminalError, match=r"config\|get"):
            await target.look("cache.redis_config", {"parameters": {"hz": 10}})
