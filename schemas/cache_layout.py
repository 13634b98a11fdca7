"""How a cache namespace lies in Redis and Memcached: key names and scripts that applications and the daemon share.

Theory of operation. A namespace owns the keys that begin with its prefix; names that go on with `~` are its own
bookkeeping. One hash per namespace, its *registration* (`coreplane:namespace:{prefix}`), holds the definition and

    clock       stamps are drawn from it: microseconds of the server's clock, but never twice and never backwards
    floor       stamp of the last flush of the whole; also part of every Memcached key, so that a flush there is O(1)
    generation  revision of the last invalidation that began; `completed`: of the last that ended

A fill takes a *token* (a stamp) before it loads. An invalidation leaves a stamp at what it invalidates: the floor, a
tombstone per key, a tombstone per tag. A fill whose token is older than one of these is refused, so what was read
before an invalidation can't land after it. Tombstones live for FILL_LIMIT_S; older tokens are refused anyway. When the
registration is lost (FLUSHALL, restart), so is the proof that nothing was missed: the new floor is the present time, and
what was begun before is refused, and what lies in Memcached isn't read any more.

Tags are sorted sets of keys, scored by the stamp of the fill: an invalidation removes what was scored before it and
leaves what was filled since. Members older than every layer's lifetime are dropped on the way.

The lower layer is always emptied before the authority, because a reader may carry a value upwards, never downwards.
A carry that began before the authority was emptied is refused by its token like any other fill.

An application's Redis user needs the keys `{prefix}*` and `coreplane:namespace:{prefix}`, and @scripting.
Pure: no I/O. Scripts are bounded by the slices their callers give.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

MARK: Final = "~"
"""First character after the prefix of the namespace's own bookkeeping; application keys can't begin with it."""
INDEX_KEY: Final = "coreplane:namespaces"
"""Set of the prefixes registered on a Redis server."""
FILL_LIMIT_S: Final = 120
"""A load that takes longer can't be stored."""
SLICE: Final = 500
"""Keys per script: below 10 ms on the servers measured."""
MEMCACHED_KEY_BYTES: Final = 250

_PLAIN = re.compile(r"[\x21-\x7e]*")
_GLOB = re.compile(r"([*?\[\]\\])")


def registration_key(prefix: str) -> str:
    """The hash (Redis) or JSON document (Memcached) of a namespace."""
    return f"coreplane:namespace:{prefix}"


def lease_key(prefix: str, key: str) -> str:
    """Who loads the key at present."""
    return f"{prefix}{MARK}lease{MARK}{key}"


def tombstone_key(prefix: str, key: str) -> str:
    """Stamp of the key's last invalidation."""
    return f"{prefix}{MARK}gone{MARK}{key}"


def tag_key(prefix: str, tag: str) -> str:
    """Sorted set of the keys that carry the tag."""
    return f"{prefix}{MARK}tag{MARK}{tag}"


def tag_tombstone_key(prefix: str, tag: str) -> str:
    """Stamp of the tag's last invalidation."""
    return f"{prefix}{MARK}untagged{MARK}{tag}"


def bookkeeping(prefix: str, full_key: str) -> bool:
    """True for the namespace's own names, False for values of the application."""
    return full_key.startswith(prefix + MARK)


def scan_pattern(prefix: str) -> str:
    """Glob that matches exactly the keys with the prefix."""
    return _GLOB.sub(r"\\\1", prefix) + "*"


def memcached_key(prefix: str, floor: int, key: str) -> str:
    """Where a value lies in Memcached: at most 250 bytes of visible ASCII, digested when the key isn't."""
    head = f"{prefix}{floor:x}:"
    if key and not key.startswith(MARK) and len(head) + len(key) <= MEMCACHED_KEY_BYTES and _PLAIN.fullmatch(key):
        return head + key
    return f"{head}{MARK}{hashlib.sha256(key.encode()).hexdigest()}"


_STAMPS: Final = """
local function text(number) return string.format('%.0f', number) end
local function now() local t = redis.call('TIME') return tonumber(t[1]) * 1000000 + tonumber(t[2]) end
local function clock(registration) return tonumber(redis.call('HGET', registration, 'clock') or '0') end
local function stamp(registration)
  local s = math.max(now(), clock(registration) + 1)
  redis.call('HSET', registration, 'clock', text(s + 1))
  return s
end
"""

BEGIN: Final = (
    _STAMPS
    + """
-- KEYS value, lease, registration; ARGV owner, lease_ms -> {value or nil, 1 when the lease is ours, token, floor}
local floor = redis.call('HGET', KEYS[3], 'floor')
local token = math.max(now(), clock(KEYS[3]))
redis.call('HSET', KEYS[3], 'clock', text(token))
if not floor then floor = text(token) redis.call('HSET', KEYS[3], 'floor', floor) end
local won = redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
return {redis.call('GET', KEYS[1]), won and 1 or 0, text(token), floor}
"""
)
"""Take a token and, when nobody has it, the lease of a key."""

FILL: Final = (
    _STAMPS
    + f"""
-- KEYS value, lease, registration, tombstone, tags..., tag tombstones...
-- ARGV token, value, life_ms, owner, tag_life_ms, key -> 1 stored, 0 refused
local token = tonumber(ARGV[1])
local floor = redis.call('HGET', KEYS[3], 'floor')
local tags = (#KEYS - 4) / 2
local fresh = floor and token >= tonumber(floor) and now() - token <= {FILL_LIMIT_S}000000
local function older(key) local gone = redis.call('GET', key) return gone and token < tonumber(gone) end
if fresh and older(KEYS[4]) then fresh = false end
for i = 5 + tags, #KEYS do if fresh and older(KEYS[i]) then fresh = false end end
if redis.call('GET', KEYS[2]) == ARGV[4] then redis.call('DEL', KEYS[2]) end
if not fresh then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if tags > 0 then
  local s = stamp(KEYS[3])
  for i = 5, 4 + tags do
    redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', text(s - tonumber(ARGV[5]) * 1000))
    redis.call('ZADD', KEYS[i], text(s), ARGV[6])
    if redis.call('PTTL', KEYS[i]) < tonumber(ARGV[5]) then redis.call('PEXPIRE', KEYS[i], ARGV[5]) end
  end
end
return 1
"""
)
"""Store what was loaded, unless something it depends on was invalidated since the token was taken."""

RELEASE: Final = """
-- KEYS lease; ARGV owner
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

STAMP: Final = (
    _STAMPS
    + f"""
-- KEYS registration, tombstones...; ARGV revision, '1' when the whole is flushed -> {{stamp, floor}}
local s = stamp(KEYS[1])
local revision = tonumber(ARGV[1])
if revision > tonumber(redis.call('HGET', KEYS[1], 'generation') or '0') then
  redis.call('HSET', KEYS[1], 'generation', ARGV[1])
end
if ARGV[2] == '1' or redis.call('HEXISTS', KEYS[1], 'floor') == 0 then
  redis.call('HSET', KEYS[1], 'floor', text(s))
end
for i = 2, #KEYS do redis.call('SET', KEYS[i], text(s), 'PX', {2 * FILL_LIMIT_S}000) end
return {{text(s), redis.call('HGET', KEYS[1], 'floor')}}
"""
)
"""Begin an invalidation: raise the generation, leave stamps. A revision of 0 changes no generation."""

DROP: Final = (
    _STAMPS
    + f"""
-- KEYS registration, then value and tombstone by turns -> number of values that were there
local s = stamp(KEYS[1])
local dropped = 0
for i = 2, #KEYS, 2 do
  redis.call('SET', KEYS[i + 1], text(s), 'PX', {2 * FILL_LIMIT_S}000)
  dropped = dropped + redis.call('UNLINK', KEYS[i])
end
return dropped
"""
)
"""Drop keys, and refuse the fills of them that are under way."""

DROP_TAGGED: Final = """
-- KEYS tag, values...; ARGV stamp up to which values go, stamp up to which members go, members... -> {dropped, removed}
local dropped, removed = 0, 0
for i = 2, #KEYS do
  local member = ARGV[i + 1]
  local score = tonumber(redis.call('ZSCORE', KEYS[1], member) or 'inf')
  if score <= tonumber(ARGV[1]) then dropped = dropped + redis.call('UNLINK', KEYS[i]) end
  if score <= tonumber(ARGV[2]) then removed = removed + redis.call('ZREM', KEYS[1], member) end
end
return {dropped, removed}
"""
"""Drop members of a tag that were filled before the stamps; what was filled since stays."""

STORE: Final = (
    _STAMPS
    + f"""
-- KEYS value, registration, tombstone, tags...; ARGV value, life_ms, tag_life_ms, key -> floor
local s = stamp(KEYS[2])
if redis.call('HEXISTS', KEYS[2], 'floor') == 0 then redis.call('HSET', KEYS[2], 'floor', text(s)) end
redis.call('SET', KEYS[3], text(s), 'PX', {2 * FILL_LIMIT_S}000)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
for i = 4, #KEYS do
  redis.call('ZADD', KEYS[i], text(s + 1), ARGV[4])
  if redis.call('PTTL', KEYS[i]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[i], ARGV[3]) end
end
return redis.call('HGET', KEYS[2], 'floor')
"""
)
"""Put a value that the application knows to be the newest; fills under way are refused."""

COMPLETE: Final = """
-- KEYS registration; ARGV revision
if tonumber(ARGV[1]) > tonumber(redis.call('HGET', KEYS[1], 'completed') or '0') then
  redis.call('HSET', KEYS[1], 'completed', ARGV[1])
end
return redis.call('HGET', KEYS[1], 'completed')
"""
"""End an invalidation."""

REGISTER: Final = """
-- KEYS registration, index; ARGV prefix, definition, digest -> '' or the prefix of another namespace in the way
for _, other in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local mine = ARGV[1]
  if other ~= mine and (string.sub(other, 1, #mine) == mine or string.sub(mine, 1, #other) == other) then
    return other
  end
end
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1], 'definition', ARGV[2], 'digest', ARGV[3])
return ''
"""

DEREGISTER: Final = """
-- KEYS registration, index; ARGV prefix
redis.call('SREM', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
"""
