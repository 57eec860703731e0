-- The load for wrk, from files: wrk ... URL -- METHOD-HEADERS-FILE BODY-FILE [BODY-FILE ...]
-- The first file holds "Name: value" lines. Several bodies are sent in turn. At the end, what happened as one line of
-- JSON after "result ".

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

function init(arguments)
  wrk.method = "POST"
  for name, value in read(arguments[1]):gmatch("([^\n:]+): ([^\n]+)") do
    wrk.headers[name] = value
  end
  wrk.body = read(arguments[2])
  if #arguments == 2 then
    return -- without a function `request` wrk sends the same bytes again and again, and Lua costs the client nothing
  end
  local requests = {}
  local turn = 0
  for number = 2, #arguments do
    requests[#requests + 1] = wrk.format(nil, nil, nil, read(arguments[number]))
  end
  function request()
    turn = turn % #requests + 1
    return requests[turn]
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'result {"requests": %d, "duration_us": %d, "p50_us": %d, "p90_us": %d, "p99_us": %d, "p999_us": %d, "max_us": %d, '
      .. '"errors": {"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(90), latency:percentile(99),
    latency:percentile(99.9), latency.max,
    errors.connect, errors.read, errors.write, errors.timeout, errors.status
  ))
end
