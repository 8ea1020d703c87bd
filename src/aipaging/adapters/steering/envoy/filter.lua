-- The lease cache of one Envoy worker: bearer token -> anchor, until the lease ends at the latest.
--
-- Ordering rules:
--   1. A deadline is counted from BEFORE the look-up was sent, less a drift margin; an entry never outlives the
--      lease or the token. The clock is the boot clock, which no step of the wall clock moves.
--   2. The revocation list only ever grows stricter: a lower (term, generation) than one already seen is ignored.
--   3. An answer is judged against the list as it is when the answer arrives, not as it was when the look-up left.
--   4. Everything runs under pcall. An error answers 503; should even that fail, no cluster is named and the router
--      answers 503, because every x-aipaging-* header of the client was removed before the first route was chosen.
--   5. A request is charged to its session's guardrail once: after its steering is decided, before it is forwarded.
--   6. A sidecar that refuses an epoch has Envoy run the request through here once more, with x-aipaging-refused: the
--      entry of that epoch is dropped and the session looked up again.
--   7. The last look at the deadline comes after the last wait of the script, and steering is decided at that instant.
--
-- Left out: signatures (the controller verifies the token; the sidecar verifies the COMMIT receipt) and requests under
-- way at the deadline: the sidecar refuses those that were waiting for a connection to it, and cuts those in flight.

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
local CLUMPING_MS = 10 -- what the way from a conforming client to here may push together: at r requests/s, 0.01 r more
local RATE_MRPS_MAX = 1e12 -- a thousand million requests a second: more is an error of somebody's arithmetic
local BURST_MAX = 1e9
local BODY_AWAITED_BYTES_MAX = 65536 -- of a request that is too early
local TABLE_TRIES_MAX = 2000 -- of a millisecond each, until the thread that lays out the buckets has done so

local ffi = require("ffi")
ffi.cdef([[
typedef struct { long tv_sec; long tv_nsec; } aipaging_timespec;
int clock_gettime(int, aipaging_timespec *);
int nanosleep(const aipaging_timespec *, aipaging_timespec *);
int getpid(void);
int open(const char *, int, ...);
long read(int, void *, unsigned long);
long write(int, const void *, unsigned long);
int close(int);
void *mmap(void *, unsigned long, int, int, int, long);
typedef struct { double spent_until_ms, key_high, key_low; } aipaging_bucket;
typedef struct { long opaque[8]; } aipaging_mutex; // holds any pthread_mutex_t; a cache line each
typedef struct { aipaging_mutex locks[64]; aipaging_bucket buckets[131072]; } aipaging_guardrails;
typedef struct { aipaging_guardrails *guardrails; long pid; } aipaging_address;
int pthread_mutex_lock(aipaging_mutex *);
int pthread_mutex_unlock(aipaging_mutex *);
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

-- Guardrails: the token bucket of every session, in memory that all workers of this process share.
--
-- A worker's script sees nothing of another's. So the first thread that runs it lays out the table and leaves its address
-- in a file of the run directory, which the supervisor removes before each start. A bucket is one instant: until then,
-- what the session may send is spent (the virtual scheduling of ITU-T I.371, annex A). So the bucket of a session that
-- has been idle for long enough says nothing, and its place may be given away. A set has eight places; where all eight
-- are in use, that nearest to idle is given away, and its session gains a burst at most (the sidecar does not forget).
-- Zeroed memory is an unlocked mutex on Linux, and between lock and unlock stands nothing that can fail.
local SETS, WAYS, LOCKS = 16384, 8, 64

local function laid_out(file)
  local memory = C.mmap(nil, ffi.sizeof("aipaging_guardrails"), 3, 34, -1, 0) -- to read and write; private, anonymous
  if ffi.cast("intptr_t", memory) == -1 then
    error("no memory for the guardrails")
  end
  local address = ffi.new("aipaging_address", ffi.cast("aipaging_guardrails *", memory), C.getpid())
  if C.write(file, address, ffi.sizeof(address)) ~= ffi.sizeof(address) then
    error("the address of the guardrails cannot be written")
  end
  C.close(file)
  return address.guardrails
end

local function shared_guardrails()
  local file = C.open("guardrails", 0xC1, ffi.cast("int", 0x180)) -- to write, created, and by us alone; mode 0600
  if file >= 0 then
    return laid_out(file)
  end
  local address, pause = ffi.new("aipaging_address"), ffi.new("aipaging_timespec", 0, 1000000)
  for _ = 1, TABLE_TRIES_MAX do
    file = C.open("guardrails", 0)
    local count = file >= 0 and C.read(file, address, ffi.sizeof(address)) or 0
    C.close(file)
    if count == ffi.sizeof(address) then
      if address.pid ~= C.getpid() then
        error("the guardrails are those of another process")
      end
      return address.guardrails
    end
    C.nanosleep(pause, nil)
  end
  error("nobody lays out the guardrails")
end

local guardrails = shared_guardrails()

local function guard(entry, rate_mrps, burst)
  local digits = entry.session:gsub("-", "")
  entry.key_high, entry.key_low = tonumber(digits:sub(-26, -14), 16) or 0, tonumber(digits:sub(-13), 16) or 0
  entry.set = entry.key_low % SETS
  entry.lock = guardrails.locks + entry.set % LOCKS
  entry.bucket = guardrails.buckets + entry.set * WAYS
  entry.rate_mrps, entry.burst, entry.each_ms = rate_mrps, burst, 1e6 / rate_mrps
  entry.ahead_ms_max = (burst - 1) * entry.each_ms + CLUMPING_MS
end

-- Find the session's place in its set, or give it the one whose owner has been idle for longest. Under the set's lock.
local function placed(entry)
  local first = guardrails.buckets + entry.set * WAYS
  local idlest = first
  for way = 0, WAYS - 1 do
    local bucket = first + way
    if bucket.key_high == entry.key_high and bucket.key_low == entry.key_low then
      return bucket
    end
    if bucket.spent_until_ms < idlest.spent_until_ms then
      idlest = bucket
    end
  end
  idlest.spent_until_ms, idlest.key_high, idlest.key_low = 0, entry.key_high, entry.key_low
  return idlest
end

-- Charge one request. Returns nil, or how many milliseconds too early the request is; such a request is not charged.
local function too_early_ms(entry, now)
  local bucket = entry.bucket
  C.pthread_mutex_lock(entry.lock)
  if bucket.key_low ~= entry.key_low or bucket.key_high ~= entry.key_high then
    bucket = placed(entry)
    entry.bucket = bucket
  end
  local spent_until_ms = bucket.spent_until_ms
  if spent_until_ms < now then
    spent_until_ms = now
  end
  local early_ms = spent_until_ms - now - entry.ahead_ms_max
  if early_ms <= 0 then
    bucket.spent_until_ms = spent_until_ms + entry.each_ms
  end
  C.pthread_mutex_unlock(entry.lock)
  return early_ms > 0 and early_ms or nil
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
  local certificate = answer["x-aipaging-certificate"] -- the one that the token is bound to; most are bound to none
  if certificate ~= nil and matching(certificate, "^[0-9a-f]+$", 64) == nil then
    return nil
  end
  local rate_mrps, burst = whole_number(answer["x-aipaging-rate-mrps"]), whole_number(answer["x-aipaging-burst"])
  if not (lease_ms and token_ms and term and n and session and anchor and receipt and generation and rate_mrps
      and burst) then
    return nil
  end
  if lease_ms > LEASE_MS_MAX or rate_mrps < 1 or rate_mrps > RATE_MRPS_MAX or burst < 1 or burst > BURST_MAX then
    return nil
  end
  local of_term, of_generation = generation:match("^(%d+)%.(%d+)$")
  local held_ms = (lease_ms < token_ms and lease_ms or token_ms) * DRIFT
  local entry = {
    session = session, anchor = anchor, receipt = receipt, term = term, n = n, certificate = certificate,
    list_term = tonumber(of_term), list_generation = tonumber(of_generation),
    version = -1, deadline_ms = asked_ms + held_ms, refresh_ms = asked_ms + held_ms * 0.5,
  }
  guard(entry, rate_mrps, burst)
  return entry
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

local NOT_SHOWN = '{"status":401,"code":"CERTIFICATE_MISMATCH","message":"This session token is bound to the client '
  .. 'certificate that its session was paged with: connect with that certificate."}'

local function refuse(handle, status, why)
  local headers = { [":status"] = status, ["content-type"] = "application/json", ["cache-control"] = "no-store" }
  if status == "401" then
    headers["www-authenticate"] = why == nil and "Bearer" or 'Bearer error="invalid_token"'
  elseif status == "503" then
    headers["retry-after"] = "1"
  end
  handle:respond(headers, why or REFUSALS[status])
end

local OVER_CONTRACT = '{"status":429,"code":"GUARDRAIL_EXCEEDED","message":"This session was admitted with %s requests '
  .. 'per second in bursts of %d; the next request may come in %d ms.","guardrail":{"name":"rate","ratePerSecond":%s,'
  .. '"burst":%d,"retryAfterMs":%d,"enforcedBy":"gateway"}}'

-- Answered before its body has come, a request costs its client the connection (HTTP/1.1). Who is told to come back
-- should not have to shake hands again: a short body is waited for, and thrown away.
local function hold_back(handle, entry, early_ms)
  local length = tonumber(handle:headers():get("content-length"))
  if length ~= nil and length > 0 and length <= BODY_AWAITED_BYTES_MAX then
    pcall(handle.body, handle) -- refused by Envoy where the body came while the controller was asked
  end
  local rate = string.format("%.12g", entry.rate_mrps / 1000)
  local wait_ms = math.ceil(early_ms)
  handle:respond({
    [":status"] = "429", ["content-type"] = "application/json", ["cache-control"] = "no-store",
    ["retry-after"] = string.format("%d", math.ceil(wait_ms / 1000)),
  }, OVER_CONTRACT:format(rate, entry.burst, wait_ms, rate, entry.burst, wait_ms))
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
  return entry -- the controller is silent: the entry is good for as long as it holds
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

-- The request was refused with the epoch that `refused` names. Forget that epoch, unless a newer answer is here already.
local function forget_refused(headers, token, refused)
  headers:remove("x-aipaging-commit") -- that of the first attempt
  local entry = young[token] or old[token]
  if entry ~= nil and entry.term .. "." .. entry.n == refused then
    forget(token)
  end
end

-- Whether the client proved, in the handshake of this connection, to hold the key of the certificate that its token is
-- bound to (RFC 8705, 3). The digest is no secret.
local function shows(handle, certificate)
  local connection = handle:streamInfo():downstreamSslConnection()
  return connection ~= nil and connection:sha256PeerCertificateDigest() == certificate
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
  local refused = headers:get("x-aipaging-refused")
  if refused ~= nil then
    forget_refused(headers, token, refused)
  end
  local entry = young[token]
  if entry == nil or entry.version ~= list_version or entry.refresh_ms <= now then
    local status
    entry, status = asked(handle, token)
    if entry == nil then
      return refuse(handle, status)
    end
    headers = handle:headers() -- Envoy retires its objects whenever a script waits
    now = boot_ms()
    -- Whatever was kept while this request waited: it is judged where the request goes on.
    if entry.deadline_ms <= now or not is_live(entry) then
      return refuse(handle, "503")
    end
  end
  if entry.certificate ~= nil and not shows(handle, entry.certificate) then
    return refuse(handle, "401", NOT_SHOWN)
  end
  local early_ms = refused == nil and too_early_ms(entry, now) or nil
  if early_ms ~= nil then
    return hold_back(handle, entry, early_ms)
  end
  headers:add("x-aipaging-anchor", entry.anchor)
  headers:add("x-aipaging-commit", entry.receipt)
  headers:replace("x-aipaging-session", entry.session) -- for the access log; the sidecar takes it off
  handle:clearRouteCache() -- once; Envoy's own clearing after every change of a header is switched off
end

function envoy_on_request(handle)
  if not pcall(steer, handle) then
    refuse(handle, "503")
  end
end
