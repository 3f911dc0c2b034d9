"""What Redis does in one step."""

from collections.abc import Sequence
from hashlib import sha1
from typing import Final

from wsrouter.brokers.redis.connections import Part, pack


class Script:
    """A script in Lua, called by the digest of its text."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._digest = sha1(source.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[bytes], *arguments: Part) -> bytes:
        """Return the command that runs it."""
        return pack("EVALSHA", self._digest, len(keys), *keys, *arguments)


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

local function epoch_of_stream()
  local epoch = redis.call('HGET', stream, 'epoch')
  if not epoch or string.sub(epoch, 1, #run) ~= run then
    redis.call('DEL', stream, kept)
    redis.call('HSET', stream, 'epoch', new_epoch, 'offset', 0)
    epoch = new_epoch
  end
  return epoch
end

local function forget_what_is_old()
  local oldest = redis.call('LINDEX', kept, 0)
  local before = now() - ttl
  while oldest and tonumber(string.match(oldest, '^%d+')) <= before do
    redis.call('LPOP', kept)
    oldest = redis.call('LINDEX', kept, 0)
  end
end

local function keep_alive()
  redis.call('PEXPIRE', stream, life)
  redis.call('PEXPIRE', kept, life)
end
"""
)
"""The stream of a room is two keys: a hash of its epoch and its last offset, and a list of what is kept, oldest first,
each with when it came. An epoch begins with what the server's run is known by, so that none outlives it."""


class Scripts:
    """The scripts.

    Args:
        sharded: whether channels belong to slots of a cluster.
    """

    def __init__(self, *, sharded: bool = False) -> None:
        publish = "SPUBLISH" if sharded else "PUBLISH"
        self.publish = Script(
            _STREAM
            + f"""
local channel, size, payload = KEYS[3], ARGV[5], ARGV[6]
local epoch = epoch_of_stream()
local offset = redis.call('HINCRBY', stream, 'offset', 1)
redis.call('RPUSH', kept, string.format('%.0f ', now()) .. payload)
redis.call('LTRIM', kept, -size, -1)
if offset % 16 == 0 then
  forget_what_is_old()
end
keep_alive()
local place = string.format('{{"v":1,"e":"%s","o":%.0f,', epoch, offset)
redis.call('{publish}', channel, place .. string.sub(payload, 8))
return {{epoch, offset}}
"""
        )
        """Keep a publication, and publish it with its place. Returns epoch and offset."""

        self.recover = Script(
            _STREAM
            + """
local since_epoch, since, most = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local epoch = epoch_of_stream()
local offset = tonumber(redis.call('HGET', stream, 'offset'))
forget_what_is_old()
keep_alive()
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

        self.all: Sequence[Script] = (self.publish, self.recover, self.disconnect, self.orders)
