"""What Redis does in one step."""

from collections.abc import Sequence
from hashlib import sha1
from typing import Final

from wsrouter.brokers.redis.connections import Part, packed


class Script:
    """A script in Lua, called by the digest of its text."""

    def __init__(self, source: str) -> None:
        self.source = source
        digest = sha1(source.encode(), usedforsecurity=False).hexdigest()
        self._begin = packed("EVALSHA", digest)

    def call(self, keys: Sequence[bytes], *arguments: Part) -> bytes:
        """Return the command that runs it."""
        parts = packed(len(keys), *keys, *arguments)
        return b"*%d\r\n%b%b" % (3 + len(keys) + len(arguments), self._begin, parts)


_NOW: Final = """
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

_STREAM: Final = (
    _NOW
    + """
local stream, kept = KEYS[1], KEYS[2]
local run, new_epoch, ttl, life = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local time = now()

-- Where the stream is, and since when both keys have the life that they have.
local function place()
  local at = redis.call('GET', stream)
  if at and string.sub(at, 1, #run) == run then
    local epoch, offset, renewed = string.match(at, '^(%S+) (%d+) (%d+)$')
    if epoch then
      return epoch, tonumber(offset), tonumber(renewed)
    end
  end
  if redis.call('EXISTS', kept) == 1 then
    redis.call('DEL', kept)
  end
  return new_epoch, 0, 0
end

local function set_place(epoch, offset, renewed)
  if time - renewed >= ttl / 8 then
    redis.call('SET', stream, string.format('%s %.0f %.0f', epoch, offset, time), 'PX', life)
    redis.call('PEXPIRE', kept, life)
  else
    redis.call('SET', stream, string.format('%s %.0f %.0f', epoch, offset, renewed), 'KEEPTTL')
  end
end

local function is_old(entry)
  return (tonumber(string.match(entry, '^%d+') or '0') or 0) <= time - ttl
end

local function forget_what_is_old()
  local oldest = redis.call('LINDEX', kept, 0)
  while oldest and is_old(oldest) do
    redis.call('LPOP', kept)
    oldest = redis.call('LINDEX', kept, 0)
  end
end
"""
)
"""The stream of a room is two keys: a text with its epoch and its last offset, and a list of what is kept, oldest
first, each with when it came. An epoch begins with what the server's run is known by, so that none outlives it."""


class Scripts:
    """The scripts.

    Args:
        sharded: whether channels belong to slots of a cluster.
    """

    def __init__(self, *, sharded: bool = False) -> None:
        self.sharded = sharded
        publish = "SPUBLISH" if sharded else "PUBLISH"
        self.publish = Script(
            _STREAM
            + f"""
local channel, size, payload = KEYS[3], tonumber(ARGV[5]), ARGV[6]
local epoch, offset, renewed = place()
offset = offset + 1
local count = redis.call('RPUSH', kept, string.format('%.0f ', time) .. payload)
if count == 1 then
  renewed = 0 -- a new list has no expiry
elseif count > size then
  redis.call('LTRIM', kept, -size, -1)
end
if offset % 16 == 0 then
  forget_what_is_old()
end
set_place(epoch, offset, renewed)
local header = string.format('{{"v":1,"e":"%s","o":%.0f,', epoch, offset)
redis.call('{publish}', channel, header .. string.sub(payload, 8))
return {{epoch, offset}}
"""
        )
        """Keep a publication, and publish it with its place. Returns epoch and offset."""

        self.recover = Script(
            _STREAM
            + """
local since_epoch, since, most = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local epoch, offset, renewed = place()
forget_what_is_old()
set_place(epoch, offset, renewed)
if since_epoch == epoch then
  local missed = offset - since
  if missed == 0 then
    return {epoch, offset, 1}
  end
  if missed > 0 and missed <= most and missed <= redis.call('LLEN', kept) then
    return {epoch, offset, 1, unpack(redis.call('LRANGE', kept, -missed, -1))}
  end
end
return {epoch, offset, 0}
"""
        )
        """Returns epoch, end, and whether what follows is all that was missed."""

        self.disconnect = Script(
            _NOW
            + f"""
local orders, channel = KEYS[1], KEYS[2]
local payload, kept_for, most = ARGV[1], ARGV[2], ARGV[3]
redis.call('RPUSH', orders, string.format('%.0f ', now()) .. payload)
redis.call('LTRIM', orders, -most, -1)
redis.call('PEXPIRE', orders, kept_for)
redis.call('{publish}', channel, payload)
return 1
"""
        )
        """Publish the order to disconnect a user, and keep it for those who subscribe later."""

        self.orders = Script(
            _NOW
            + """
return {string.format('%.0f', now()), redis.call('LRANGE', KEYS[1], 0, -1)}
"""
        )
        """Returns the time, and the orders that are kept."""

        self.touch = Script(
            _STREAM
            + """
if redis.call('EXISTS', stream) == 1 then
  forget_what_is_old()
  set_place(place())
end
return 1
"""
        )
        """Keep a stream, if there is one, and forget what is too old. Takes what `recover` takes."""

        self.announce = Script(
            _NOW
            + f"""
local entries, channel = KEYS[1], KEYS[2]
local node, life, header = ARGV[1], ARGV[2], ARGV[3]
local time = string.format('%.0f', now())
local refs, taken, changes, refused = {{}}, {{}}, {{}}, {{}}
for i = 4, #ARGV, 3 do
  refs[#refs + 1] = ARGV[i]
end
for i, known in ipairs(redis.call('HMGET', entries, unpack(refs))) do
  local dropped, item = ARGV[3 * i + 2], ARGV[3 * i + 3]
  local owner, since
  if known then
    owner, since = string.match(known, '^(%S+) (%d+) ')
  end
  if known and owner ~= node and since == '0' then
    refused[#refused + 1] = refs[i]
  else
    if dropped == '0' then
      since = '0'
    elseif owner ~= node or since == '0' then
      since = time
    end
    changes[#changes + 1] = refs[i]
    changes[#changes + 1] = node .. ' ' .. since .. ' ' .. item
    taken[#taken + 1] = item
  end
end
if #taken > 0 then
  redis.call('HSET', entries, unpack(changes))
  redis.call('PEXPIRE', entries, life)
  redis.call('{publish}', channel, header .. '[' .. table.concat(taken, ',') .. ']')
end
return refused
"""
        )
        """Take entries of a node and publish them. Returns the refs that another node has."""

        self.withdraw = Script(
            f"""
local entries, channel = KEYS[1], KEYS[2]
local node, header = ARGV[1], ARGV[2]
local refs, gone, items = {{}}, {{}}, {{}}
for i = 3, #ARGV, 2 do
  refs[#refs + 1] = ARGV[i]
end
for i, known in ipairs(redis.call('HMGET', entries, unpack(refs))) do
  if known then
    local owner, since = string.match(known, '^(%S+) (%d+) ')
    if owner == node or since ~= '0' then
      gone[#gone + 1] = refs[i]
      items[#items + 1] = ARGV[2 * i + 2]
    end
  end
end
if #gone > 0 then
  redis.call('HDEL', entries, unpack(gone))
  redis.call('{publish}', channel, header .. '[' .. table.concat(items, ',') .. ']')
end
return #gone
"""
        )
        """Remove entries of a node, and dropped ones, and publish that they left."""

        self.entries = Script(
            _NOW
            + """
return {string.format('%.0f', now()), redis.call('HGETALL', KEYS[1])}
"""
        )
        """Returns the time, and the entries of a room: refs and what is kept of each, in turn."""

        self.remove = Script(
            """
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return 1
"""
        )
        """Remove entries that are still what they were."""

        self.acquire = Script(
            """
local slots = KEYS[1]
local member, most, life, mode = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local replaced = false
if not redis.call('ZSCORE', slots, member) then
  if mode ~= 'try' then
    local alive = {}
    for i = 5, #ARGV do
      alive[ARGV[i]] = true
    end
    for _, holder in ipairs(redis.call('ZRANGE', slots, 0, -1)) do
      if not alive[string.match(holder, '^%S+')] then
        redis.call('ZREM', slots, holder)
      end
    end
  end
  if redis.call('ZCARD', slots) >= most then
    if mode ~= 'replace' then
      return {0}
    end
    replaced = redis.call('ZPOPMIN', slots)[1]
  end
  local time = redis.call('TIME')
  redis.call('ZADD', slots, string.format('%.0f', time[1] * 1000000 + time[2]), member)
end
redis.call('PEXPIRE', slots, life)
return {1, replaced}
"""
        )
        """Take a slot: ``try`` if one is free, else after those of nodes that are not alive, or replace the oldest."""

        self.renew = Script(
            """
local slots, life = KEYS[1], ARGV[1]
local time = redis.call('TIME')
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '1' then
    redis.call('ZADD', slots, 'NX', string.format('%.0f', time[1] * 1000000 + time[2]), ARGV[i])
  else
    redis.call('ZREM', slots, ARGV[i])
  end
end
redis.call('PEXPIRE', slots, life)
return 1
"""
        )
        """Take notice who holds slots, and who does not any more."""

        self.beat = Script(
            _NOW
            + """
local nodes, node, ttl = KEYS[1], ARGV[1], tonumber(ARGV[2])
local time = now()
local new = redis.call('ZADD', nodes, string.format('%.0f', time), node)
redis.call('ZREMRANGEBYSCORE', nodes, '-inf', string.format('%.0f', time - ttl))
redis.call('PEXPIRE', nodes, ttl)
return {new, string.format('%.0f', time), redis.call('ZRANGE', nodes, 0, -1, 'WITHSCORES')}
"""
        )
        """Note that a node lives. Returns whether it was not known, the time, and the nodes with when each did so."""

        self.all: Sequence[Script] = tuple(each for each in vars(self).values() if isinstance(each, Script))
