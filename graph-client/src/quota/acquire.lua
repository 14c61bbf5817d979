-- Decides and charges in one step, on Redis' own clock. The same rules as the in-process ledger.
-- KEYS: 1 generation, 2 workers, 3 requests, 4 uploads, 5 slots, 6 claims, 7 pause
-- ARGV: 1 mode (acquire|charge), 2 worker, 3 worker ttl, 4 class, 5 slot, 6 slot ttl, 7 in flight,
--       8 requests, 9 their limit, 10 their window, 11 upload bytes, 12 their limit, 13 their window, 14 claim, 15 buckets
-- Answer: {state, wait, requests used, upload bytes used, workers}
-- state: 0 granted, 1 paused, 2 requests, 3 upload, 4 slots, 5 count not trusted yet
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local buckets = tonumber(ARGV[15])

redis.call('ZADD', KEYS[2], now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[3]))
local workers = redis.call('ZCARD', KEYS[2])

local function width(window) return math.max(math.ceil(window / buckets), 1) end

local function live(key, window)
  local current = math.floor(now / width(window))
  local flat = redis.call('HGETALL', key)
  local sum, list = 0, {}
  for i = 1, #flat, 2 do
    local bucket, charged = tonumber(flat[i]), tonumber(flat[i + 1])
    if bucket + buckets < current then
      redis.call('HDEL', key, flat[i])
    else
      sum = sum + charged
      list[#list + 1] = { bucket, charged }
    end
  end
  table.sort(list, function(a, b) return a[1] < b[1] end)
  return sum, list
end

local function wait_for(sum, list, cost, limit, window)
  local excess = sum + cost - limit
  if excess <= 0 then return 0 end
  for _, entry in ipairs(list) do
    excess = excess - entry[2]
    if excess <= 0 then return math.max((entry[1] + buckets + 1) * width(window) - now, 1) end
  end
  return window
end

local requests, request_limit, request_window = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local upload, upload_limit, upload_window = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local request_sum, request_list = live(KEYS[3], request_window)
local upload_sum, upload_list = live(KEYS[4], upload_window)

local function answer(state, wait)
  return { state, wait, request_sum, upload_sum, workers }
end

local function charge(key, cost, window)
  if cost > 0 then
    redis.call('HINCRBY', key, string.format('%.0f', math.floor(now / width(window))), string.format('%.0f', cost))
  end
  redis.call('PEXPIRE', key, string.format('%.0f', window * 2))
end

local function take()
  charge(KEYS[3], requests, request_window)
  charge(KEYS[4], upload, upload_window)
  redis.call('ZADD', KEYS[5], now + tonumber(ARGV[6]), ARGV[5])
  redis.call('PEXPIRE', KEYS[5], tonumber(ARGV[6]) * 2)
  request_sum = request_sum + requests
  upload_sum = upload_sum + upload
end

local opened = redis.call('GET', KEYS[1])
if not opened then
  opened = string.format('%.0f', now)
  redis.call('SET', KEYS[1], opened)
end

if ARGV[1] == 'charge' then
  take()
  return answer(0, 0)
end

local pause = redis.call('PTTL', KEYS[7])
if pause > 0 then return answer(1, pause) end

local trusted_at = tonumber(opened) + math.max(request_window, upload_window)
if now < trusted_at then return answer(5, trusted_at - now) end

local class = tonumber(ARGV[4])
local claims = redis.call('HGETALL', KEYS[6])
for i = 1, #claims, 2 do
  if tonumber(claims[i]) < class and tonumber(claims[i + 1]) > now then return answer(4, 50) end
end

local function claim(duration)
  redis.call('HSET', KEYS[6], ARGV[4], string.format('%.0f', now + duration))
  redis.call('PEXPIRE', KEYS[6], string.format('%.0f', math.max(duration, request_window) * 2))
end

local request_wait = wait_for(request_sum, request_list, requests, request_limit, request_window)
local upload_wait = wait_for(upload_sum, upload_list, upload, upload_limit, upload_window)
if request_wait > 0 or upload_wait > 0 then
  local wait = math.max(request_wait, upload_wait)
  claim(wait + tonumber(ARGV[14]))
  return answer(request_wait >= upload_wait and 2 or 3, wait)
end

redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now)
if redis.call('ZCARD', KEYS[5]) >= tonumber(ARGV[7]) then
  claim(tonumber(ARGV[14]))
  return answer(4, 50)
end

redis.call('HDEL', KEYS[6], ARGV[4])
take()
return answer(0, 0)
