"""The count of limits that all gateways share: `gateway.buckets` once more, as one atomic script in Valkey.

A bucket is a hash: `r<second>` and `t<second>` count requests and tokens, `g<gateway>` is "slots lease hold" in
milliseconds since 1970. Time is Valkey's own, so gateways need not agree on theirs. Nothing is kept on disk: a
count that begins anew has a new marker, at which each gateway tells it what it let pass in the last minute.
"""

import asyncio
from typing import Any

import orjson
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.buckets import LIMITLESS, SPAN, SPARE, Answer, Ask
from gateway.contract import Away

PREFIX = "tir:quota:"
MARKER = "tir:quota-count"
SECONDS = 0.2  # a call that takes longer is as good as lost

SCRIPT = f"""
local SPAN, SPARE, LIMITLESS = {SPAN}, {SPARE}, {LIMITLESS}
local ask = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local second = math.floor(now / 1000)

local marker = redis.call('GET', KEYS[1])
if not marker then
  marker = ask.proposed
  redis.call('SET', KEYS[1], marker)
end
if ask.known ~= '' and ask.known ~= marker then
  return cjson.encode({{marker = marker, now = now}})
end

local function counts(cell)
  return cell > second - SPAN and cell <= second + SPAN
end

local function add(bucket, what, cell, number)
  local cells = bucket.cells[what]
  number = math.max(number, -(cells[cell] or 0))
  cells[cell] = (cells[cell] or 0) + number
  bucket.used[what] = bucket.used[what] + number
  bucket.added[what][cell] = (bucket.added[what][cell] or 0) + number
end

local function told(key, tell)
  local bucket = {{
    key = key, tell = tell, mine = tell.held, hold = 0,
    cells = {{{{}}, {{}}}}, added = {{{{}}, {{}}}}, used = {{0, 0, tell.held}},
  }}
  local stale, raw = {{}}, redis.call('HGETALL', key)
  for at = 1, #raw, 2 do
    local kind, name, value = raw[at]:sub(1, 1), raw[at]:sub(2), raw[at + 1]
    if kind == 'g' then
      local slots, lease, hold = value:match('^(%d+) (%d+) (%d+)$')
      if tonumber(lease) <= now or tonumber(lease) > now + 2 * ask.lease_ms then
        stale[#stale + 1] = raw[at]
      elseif name ~= ask.gateway then
        bucket.used[3] = bucket.used[3] + tonumber(slots)
        bucket.hold = math.max(bucket.hold, tonumber(hold))
      end
    else
      local what, cell = kind == 'r' and 1 or 2, tonumber(name)
      if not counts(cell) then
        stale[#stale + 1] = raw[at]
      else
        bucket.cells[what][cell] = tonumber(value)
        bucket.used[what] = bucket.used[what] + tonumber(value)
      end
    end
  end
  if #stale > 0 then redis.call('HDEL', key, unpack(stale)) end
  for _, owed in ipairs(tell.owed) do
    if counts(owed[1]) then
      for what = 1, 2 do
        if owed[what + 1] ~= 0 then add(bucket, what, owed[1], owed[what + 1]) end
      end
    end
  end
  return bucket
end

local function wait_ms(bucket, what, over)
  if what == 3 then return 1000 end
  local order = {{}}
  for cell in pairs(bucket.cells[what]) do order[#order + 1] = cell end
  table.sort(order)
  for _, cell in ipairs(order) do
    over = over - bucket.cells[what][cell]
    if over <= 0 then return (cell + SPAN) * 1000 - now end
  end
  return SPAN * 1000
end

local function take_units(bucket, numbers, cell)
  for what = 1, 2 do
    if bucket.tell.limits[what] ~= LIMITLESS and numbers[what] > 0 then
      add(bucket, what, cell, numbers[what])
    end
  end
  if bucket.tell.limits[3] ~= LIMITLESS then
    bucket.mine = bucket.mine + numbers[3]
    bucket.used[3] = bucket.used[3] + numbers[3]
  end
end

local buckets = {{}}
for at, tell in ipairs(ask.buckets) do buckets[at] = told(KEYS[at + 1], tell) end

local function take(item)
  local needs, worst = {{1, item.tokens, 1}}, false
  for _, at in ipairs(item.buckets) do
    local bucket = buckets[at + 1]
    for what = 1, 3 do
      local limit = bucket.tell.limits[what]
      local over = bucket.used[what] + needs[what] - limit
      if limit ~= LIMITLESS and needs[what] > 0 and over > 0 then
        local wait = wait_ms(bucket, what, over)
        if not worst or wait > worst[4] then
          worst = {{at, what - 1, bucket.used[what], wait, math.max(0, bucket.hold - now)}}
        end
      end
    end
  end
  if not worst then
    for _, at in ipairs(item.buckets) do take_units(buckets[at + 1], needs, second) end
  end
  return worst
end

local function last(bucket, what)
  local found = 0
  for cell, number in pairs(bucket.cells[what]) do
    if number > 0 and cell > found then found = cell end
  end
  return found
end

local function give(bucket)
  local cell, extra, holding = math.floor((now + ask.hold_ms) / 1000), {{0, 0, 0}}, bucket.tell.holding_ms
  for what = 1, 3 do
    local limit = bucket.tell.limits[what]
    if limit ~= LIMITLESS then
      extra[what] = math.max(0, math.min(bucket.tell.want[what], math.floor((limit - bucket.used[what]) / SPARE)))
      if extra[what] > 0 then holding = ask.hold_ms end
    end
  end
  take_units(bucket, extra, cell)
  for what, letter in ipairs({{'r', 't'}}) do
    for at, number in pairs(bucket.added[what]) do
      if number ~= 0 then redis.call('HINCRBY', bucket.key, letter .. at, number) end
    end
  end
  local mine = 'g' .. ask.gateway
  if bucket.mine > 0 or holding > 0 then
    local hold = holding > 0 and now + holding or 0
    redis.call('HSET', bucket.key, mine, string.format('%d %d %d', bucket.mine, now + ask.lease_ms, hold))
  else
    redis.call('HDEL', bucket.key, mine)
  end
  redis.call('PEXPIRE', bucket.key, math.max((SPAN + 1) * 1000, ask.lease_ms) + ask.hold_ms)
  return {{bucket.used, extra, cell, {{last(bucket, 1), last(bucket, 2)}}}}
end

local shorts, states = {{}}, {{}}
for at, item in ipairs(ask.items) do shorts[at] = take(item) end
for at, bucket in ipairs(buckets) do states[at] = give(bucket) end
return cjson.encode({{marker = marker, now = now, shorts = shorts, states = states}})
"""


class SharedCount:
    """The count behind `VALKEY_URL`; every call may raise Away."""

    def __init__(self, url: str, *, seconds: float = SECONDS) -> None:
        self._valkey: Any = redis.asyncio.Redis.from_url(
            url, socket_connect_timeout=seconds, socket_timeout=seconds, retry=Retry(NoBackoff(), 0)
        )
        self._script = self._valkey.register_script(SCRIPT)

    async def exchange(self, ask: Ask) -> Answer:
        keys = [MARKER, *(PREFIX + told.name for told in ask.buckets)]
        try:
            found = await self._script(keys=keys, args=[orjson.dumps(ask)])
        except (redis.RedisError, OSError) as problem:
            raise Away(f"Valkey: {problem}") from problem
        return Answer.from_json(orjson.loads(found))

    async def close(self) -> None:
        await self._valkey.aclose()
        await asyncio.sleep(0)  # a connection that broke closes with the loop's next turn
