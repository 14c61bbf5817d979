-- Decides and charges in one step, on Redis' own clock. The same rules as the in-process ledger.
-- KEYS: 1 generation, 2 workers, 3 slots, 4 claims, 5 pause, then one per window
-- ARGV: 1 mode (acquire|charge|correct|look), 2 worker, 3 worker ttl, 4 class, 5 slot, 6 slot ttl, 7 in flight, 8 claim,
--       9 most buckets of a window, 10 longest window that is waited for after a loss, 11 left and 12 reset (correct only), then for each
--       window: its charge, what may be granted of it, its whole limit, its length, and what the caller knows to be used
-- Answer: {state, wait, workers, used of each window ...}
-- state: 0 granted, 1 paused, 2 slots, 3 count not trusted yet, 3 + n window n is short
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local mode, most_buckets = ARGV[1], tonumber(ARGV[9])

local function text(number) return string.format('%.0f', number) end

if mode ~= 'look' then redis.call('ZADD', KEYS[2], now, ARGV[2]) end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[3]))
local workers = redis.call('ZCARD', KEYS[2])

local function width(length) return math.max(math.ceil(length / most_buckets), 1) end

local function buckets(length) return math.ceil(length / width(length)) end

local function live(key, length)
  local oldest = math.floor(now / width(length)) - buckets(length)
  local flat = redis.call('HGETALL', key)
  local sum, list = 0, {}
  for i = 1, #flat, 2 do
    local bucket, charged = tonumber(flat[i]), tonumber(flat[i + 1])
    if bucket < oldest then
      redis.call('HDEL', key, flat[i])
    else
      sum = sum + charged
      list[#list + 1] = { bucket, charged }
    end
  end
  return sum, list
end

local function charge(window, cost, at)
  if cost > 0 then
    redis.call('HINCRBY', window.key, text(math.floor(at / width(window.length))), text(cost))
    window.sum = window.sum + cost
  end
  redis.call('PEXPIRE', window.key, text(window.length * 2))
end

local windows = {}
for i = 6, #KEYS do
  local at = 13 + (i - 6) * 5
  local window = {
    key = KEYS[i], cost = tonumber(ARGV[at]), granted = tonumber(ARGV[at + 1]), limit = tonumber(ARGV[at + 2]),
    length = tonumber(ARGV[at + 3]), known = tonumber(ARGV[at + 4]),
  }
  window.sum, window.list = live(window.key, window.length)
  windows[#windows + 1] = window
end

local function wait_for(window)
  local excess = window.sum + window.cost - window.granted
  if excess <= 0 then return 0 end
  table.sort(window.list, function(a, b) return a[1] < b[1] end)
  for _, entry in ipairs(window.list) do
    excess = excess - entry[2]
    if excess <= 0 then
      return math.max((entry[1] + buckets(window.length) + 1) * width(window.length) - now, 1)
    end
  end
  return window.length
end

local function answer(state, wait)
  local said = { state, wait, workers }
  for _, window in ipairs(windows) do said[#said + 1] = window.sum end
  return said
end

local function take()
  for _, window in ipairs(windows) do charge(window, window.cost, now) end
  redis.call('ZADD', KEYS[3], now + tonumber(ARGV[6]), ARGV[5])
  redis.call('PEXPIRE', KEYS[3], tonumber(ARGV[6]) * 2)
end

if mode == 'look' then return answer(0, 0) end

if mode == 'correct' then
  local window = windows[1]
  local missing = window.limit - window.sum - tonumber(ARGV[11])
  charge(window, missing, math.min(now, now + tonumber(ARGV[12]) - window.length))
  return answer(0, 0)
end

local opened = redis.call('GET', KEYS[1])
if not opened then
  opened = text(now)
  redis.call('SET', KEYS[1], opened)
end

if mode == 'charge' then
  take()
  return answer(0, 0)
end

local pause = redis.call('PTTL', KEYS[5])
if pause > 0 then return answer(1, pause) end

-- After a loss short windows are waited for. Of long ones what the callers know is taken over, until nothing can be missing.
local trusted_at = tonumber(opened)
for _, window in ipairs(windows) do
  if window.length <= tonumber(ARGV[10]) then
    trusted_at = math.max(trusted_at, tonumber(opened) + window.length)
  elseif now < tonumber(opened) + window.length and window.known > window.sum then
    charge(window, window.known - window.sum, now)
    window.sum, window.list = live(window.key, window.length)
  end
end
if now < trusted_at then return answer(3, trusted_at - now) end

-- A claim keeps lower classes back from what a higher one waits for: its field is the class and the window, 0 for the slots.
local class = tonumber(ARGV[4])
local function takes(what) return what == 0 or (windows[what] and windows[what].cost > 0) end
local claims = redis.call('HGETALL', KEYS[4])
for i = 1, #claims, 2 do
  local claimant, what = string.match(claims[i], '^(%d+):(%d+)$')
  if tonumber(claims[i + 1]) <= now then
    redis.call('HDEL', KEYS[4], claims[i])
  elseif tonumber(claimant) < class and takes(tonumber(what)) then
    return answer(2, 50)
  end
end

local function claim(what, duration)
  redis.call('HSET', KEYS[4], class .. ':' .. what, text(now + duration))
  redis.call('PEXPIRE', KEYS[4], text(math.max(duration * 2, redis.call('PTTL', KEYS[4]))))
end

local wait, short = 0, 0
for i, window in ipairs(windows) do
  local needed = wait_for(window)
  if needed > wait then wait, short = needed, i end
end
if wait > 0 then
  claim(short, wait + tonumber(ARGV[8]))
  return answer(3 + short, wait)
end

redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[7]) then
  claim(0, tonumber(ARGV[8]))
  return answer(2, 50)
end

for what = 0, #windows do
  if takes(what) then redis.call('HDEL', KEYS[4], class .. ':' .. what) end
end
take()
return answer(0, 0)
