-- The lease cache of one Envoy worker: bearer token -> anchor, until the lease ends at the latest.
--
-- Ordering rules:
--   1. A deadline is counted from BEFORE the look-up was sent, less a drift margin; an entry never outlives the
--      lease or the token. The clock is the boot clock, which no step of the wall clock moves.
--   2. The revocation list only ever grows stricter: a lower (term, generation) than one already seen is ignored.
--   3. An answer is judged against the list as it is when the answer arrives, not as it was when the look-up left.
--   4. Everything runs under pcall. An error answers 503; should even that fail, no cluster is named and the router
--      answers 503, because every x-aipaging-* header of the client was removed before the first route was chosen.
--
-- Left out: signatures (the controller verifies the token; the sidecar verifies the COMMIT receipt) and requests
-- in flight at the deadline (the sidecar cuts them).

local DRIFT = 0.999 -- two clocks slewed apart by NTP's largest rate, 500 ppm each way
local LOOK_UP_TIMEOUT_MS = 1000 -- a miss waits no longer for the controller
local REFRESH_TIMEOUT_MS = 500 -- a refresh waits less: the entry is still good
local REFRESH_PAUSE_MS = 100 -- after a refresh began, nobody else of this worker tries for at least this long
local ENTRIES_PER_GENERATION_MAX = 16384 -- two generations of about 2 KB an entry: 64 MB a worker at most
local FENCES_MAX = 64 -- twice the list: room for entries that the list has dropped meanwhile
local LIST_AGE_MS = 1 -- reading the list costs a tenth of the filter; the controller waits longer than this after an ack
local TOKEN_CHARS_MAX = 4096 -- an AIST has about 700
local RECEIPT_CHARS_MAX = 4096 -- a receipt has about 800
local LEASE_MS_MAX = 86400000 -- nobody grants a day; a longer lease is an error of somebody's arithmetic
local ATTEMPTS_MAX = 3 -- an answer overtaken by the list is asked for again, but not for ever

local ffi = require("ffi")
ffi.cdef([[
typedef struct { long tv_sec; long tv_nsec; } aipaging_timespec;
int clock_gettime(int, aipaging_timespec *);
]])
local C = ffi.C
local CLOCK_BOOTTIME = 7
local timespec = ffi.new("aipaging_timespec")
local tonumber, type, pcall, pairs = tonumber, type, pcall, pairs

local function boot_ms()
  if C.clock_gettime(CLOCK_BOOTTIME, timespec) ~= 0 then
    error("the boot clock cannot be read")
  end
  return tonumber(timespec.tv_sec) * 1000 + tonumber(timespec.tv_nsec) * 1e-6
end

-- Requests leave garbage (a coroutine, a few wrappers); collecting it less often than Lua's default saves 2 % of Envoy's
-- time, and a full cache of 64 MB may grow to three times that in between.
collectgarbage("setpause", 300)

-- The cache: two generations. What is used moves to the young one; when that is full the old one is forgotten.
local young, old, young_count = {}, {}, 0

local function promote(token, entry)
  if young[token] == nil then
    if young_count >= ENTRIES_PER_GENERATION_MAX then
      old, young, young_count = young, {}, 0
    end
    young_count = young_count + 1
  end
  young[token] = entry
end

-- Answers may overtake one another: the newer epoch, and of one epoch the later deadline, stays.
local function keep(token, fresh)
  local known = young[token]
  if known ~= nil and (known.term > fresh.term or (known.term == fresh.term and (known.n > fresh.n
      or (known.n == fresh.n and known.deadline_ms >= fresh.deadline_ms)))) then
    return known
  end
  promote(token, fresh)
  return fresh
end

local function forget(token)
  if young[token] ~= nil then
    young[token] = nil
    young_count = young_count - 1
  end
  old[token] = nil
end

-- The revocation list: "<term>.<generation>|<session>=<term>.<n>,..."
local list_seen = nil -- the string that was parsed last; strings are interned, so comparing costs a pointer
local list_stale_ms = 0 -- when the list is to be read again
local list_version = 0 -- rises whenever the list changed: entries are judged once per version
local list_term, list_generation = -1, -1
local fence_term, fence_n, fence_count = {}, {}, 0

local function raise_list(term, generation)
  if term > list_term or (term == list_term and generation > list_generation) then
    list_term, list_generation = term, generation
    fence_term, fence_n, fence_count = {}, {}, 0
    list_version = list_version + 1
  end
end

local function absorb(list)
  local term, generation, rest = list:match("^(%d+)%.(%d+)|(.*)$")
  if term == nil then
    error("the revocation list is malformed")
  end
  term, generation = tonumber(term), tonumber(generation)
  if term < list_term or (term == list_term and generation < list_generation) then
    list_seen = list
    return
  end
  raise_list(term, generation)
  if fence_count > FENCES_MAX then
    fence_term, fence_n, fence_count = {}, {}, 0
  end
  for session, fenced_term, fenced_n in rest:gmatch("([^=,]+)=(%d+)%.(%d+)") do
    fenced_term, fenced_n = tonumber(fenced_term), tonumber(fenced_n)
    local known = fence_term[session]
    if known == nil then
      fence_count = fence_count + 1
    end
    if known == nil or fenced_term > known or (fenced_term == known and fenced_n > fence_n[session]) then
      fence_term[session], fence_n[session] = fenced_term, fenced_n
    end
  end
  list_version = list_version + 1
  list_seen = list
end

local function is_live(entry)
  if entry.version == list_version then
    return true
  end
  if entry.term < list_term or entry.list_term < list_term
      or (entry.list_term == list_term and entry.list_generation < list_generation) then
    return false
  end
  local fenced = fence_term[entry.session]
  if fenced ~= nil and (entry.term < fenced or (entry.term == fenced and entry.n <= fence_n[entry.session])) then
    return false
  end
  entry.version = list_version
  return true
end

-- Answers of the controller. Whatever is not exactly as agreed counts as no answer.
local function whole_number(text)
  if type(text) ~= "string" or #text > 15 or not text:find("^%d+$") then
    return nil
  end
  return tonumber(text)
end

local function matching(text, pattern, length_max)
  if type(text) == "string" and #text <= length_max and text:find(pattern) then
    return text
  end
  return nil
end

local function read_answer(answer, asked_ms)
  local lease_ms = whole_number(answer["x-aipaging-lease-ms"])
  local token_ms = whole_number(answer["x-aipaging-token-ms"])
  local term, n = whole_number(answer["x-aipaging-term"]), whole_number(answer["x-aipaging-n"])
  local session = matching(answer["x-aipaging-session"], "^[0-9a-f%-]+$", 36)
  local anchor = matching(answer["x-aipaging-anchor"], "^anchor:[a-z0-9.%-]+$", 80)
  local receipt = matching(answer["x-aipaging-commit"], "^[%w%-_.]+$", RECEIPT_CHARS_MAX)
  local generation = matching(answer["x-aipaging-generation"], "^%d+%.%d+$", 31)
  if lease_ms ~= nil and lease_ms > LEASE_MS_MAX then
    return nil
  end
  if not (lease_ms and token_ms and term and n and session and anchor and receipt and generation) then
    return nil
  end
  local of_term, of_generation = generation:match("^(%d+)%.(%d+)$")
  local held_ms = (lease_ms < token_ms and lease_ms or token_ms) * DRIFT
  return {
    session = session, anchor = anchor, receipt = receipt, term = term, n = n,
    list_term = tonumber(of_term), list_generation = tonumber(of_generation),
    version = -1, deadline_ms = asked_ms + held_ms, refresh_ms = asked_ms + held_ms * 0.5,
  }
end

-- Ask the controller. Returns an entry, or nil and the status to answer with.
local function look_up(handle, token, timeout_ms)
  for _ = 1, ATTEMPTS_MAX do
    local asked_ms = boot_ms()
    local answer = handle:httpCall("controller", {
      [":method"] = "GET", [":path"] = "/steering/v1/look-up", [":authority"] = "controller",
      ["authorization"] = token,
    }, nil, timeout_ms, false)
    local status = answer[":status"]
    if status == "401" or status == "403" then
      return nil, status
    end
    local entry = status == "200" and read_answer(answer, asked_ms) or nil
    if entry == nil or entry.deadline_ms <= boot_ms() then
      return nil, "503"
    end
    raise_list(entry.list_term, entry.list_generation)
    if is_live(entry) then
      return entry
    end
  end
  return nil, "503"
end

local REFUSALS = {
  ["401"] = '{"status":401,"code":"UNAUTHENTICATED","message":"A valid session token (AIST) is needed as bearer token."}',
  ["403"] = '{"status":403,"code":"NO_COMMIT","message":"The session holds no valid admission lease (COMMIT)."}',
  ["503"] = '{"status":503,"code":"UNAVAILABLE","message":"Steering cannot be decided now; try again shortly."}',
}

local function refuse(handle, status)
  local headers = { [":status"] = status, ["content-type"] = "application/json", ["cache-control"] = "no-store" }
  if status == "401" then
    headers["www-authenticate"] = "Bearer"
  elseif status == "503" then
    headers["retry-after"] = "1"
  end
  handle:respond(headers, REFUSALS[status])
end

-- One request refreshes an entry of which half has passed; the others go on using it meanwhile.
local function refreshed(handle, token, entry, now)
  local pause_ms = (entry.deadline_ms - now) * 0.25
  if pause_ms < REFRESH_PAUSE_MS then
    pause_ms = REFRESH_PAUSE_MS
  end
  -- Never beyond the deadline: the fast path compares with this instant alone.
  entry.refresh_ms = now + pause_ms < entry.deadline_ms and now + pause_ms or entry.deadline_ms
  local fresh, status = look_up(handle, token, REFRESH_TIMEOUT_MS)
  if fresh ~= nil then
    return keep(token, fresh)
  end
  if status ~= "503" then
    forget(token)
    return nil, status
  end
  if entry.deadline_ms <= boot_ms() or not is_live(entry) then
    return nil, status
  end
  return entry
end

-- The slow path: expired, fenced, half spent or never seen. May wait for the controller.
local function asked(handle, token)
  local entry = young[token] or old[token]
  if entry ~= nil then
    local now = boot_ms()
    if entry.deadline_ms > now and is_live(entry) then
      promote(token, entry)
      return now < entry.refresh_ms and entry or refreshed(handle, token, entry, now)
    end
    forget(token)
  end
  if #token > TOKEN_CHARS_MAX or not token:find("^[Bb]earer [%w%-_.]+$") then
    return nil, "401"
  end
  local fresh, status = look_up(handle, token, LOOK_UP_TIMEOUT_MS)
  if fresh ~= nil then
    return keep(token, fresh)
  end
  return nil, status
end

local function steer(handle)
  local now = boot_ms()
  if now >= list_stale_ms then
    local list = handle:filterContext():get("revoked")
    if list ~= list_seen then
      absorb(list)
    end
    list_stale_ms = now + LIST_AGE_MS
  end
  local headers = handle:headers()
  local token = headers:get("authorization")
  if token == nil then
    return refuse(handle, "401")
  end
  local entry = young[token]
  if entry == nil or entry.version ~= list_version or entry.refresh_ms <= now then
    local status
    entry, status = asked(handle, token)
    if entry == nil then
      return refuse(handle, status)
    end
    headers = handle:headers() -- Envoy retires its objects whenever a script waits
  end
  headers:add("x-aipaging-anchor", entry.anchor)
  headers:add("x-aipaging-commit", entry.receipt)
  handle:clearRouteCache() -- once; Envoy's own clearing after every change of a header is switched off
end

function envoy_on_request(handle)
  if not pcall(steer, handle) then
    refuse(handle, "503")
  end
end
