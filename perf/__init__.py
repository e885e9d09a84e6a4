"""The benchmarks: a real server in its own process, clients in theirs, and what it cost.

Layout, for whoever adds a case or a command: `plan` is the data a client process is given and gives
back, `bodies` what it sends, `wire` its HTTP, `operations` what one client does, `client` the
process; `server` starts and stops a registry, `sampling` watches it from outside, `run` joins them
for one case; `cases` is the table of memory cases, `report` prints, `machine` says where. The speed
benchmark uses the same bodies and servers with a client of its own: `measures` says what a case is,
`speed` is their table, `transfers` and `small` what is done in them, `lean` its HTTP, `wrk` requests
per second, `contenders` who takes part, `attempt` one measurement, `contest` the command and
`standings` what it prints.
Nothing here imports trioreg.
"""
