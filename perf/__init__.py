"""The benchmarks: a real server in its own process, clients in theirs, and what it cost.

Layout, for whoever adds a case or a command: `plan` is the data a client process is given and gives
back, `bodies` what it sends, `wire` its HTTP, `operations` what one client does, `client` the
process; `server` starts and stops a registry, `sampling` watches it from outside, `run` joins them
for one case; `cases` is the table of memory cases, `report` prints, `machine` says where.
Nothing here imports trioreg.
"""
