"""`uv run bench`: what the gateway costs, beside what it is made of and what others cost.

Everything runs on this machine, every party as a process of its own: a mock of
a provider (`mock`), the load (`generator`), and the targets between them
(`targets`, `peers`). `measure` takes one slice of one target, `scenarios` says
which slices there are, `summary` and `aims` make figures of them, `report` and
`plot` show these. `soak` is a run of its own that looks for what is left behind.

Rules
- Figures are for one machine: compare the rows of one run, not of two.
- Targets are measured in turns, in slices of seconds, so that whatever else the
  machine does hits all of them alike; a figure is the median over the rounds.
- Every answer is checked. A run in which one of ours was wrong ends with exit code 1.
- Times are seconds of the machine's monotonic clock, which all processes share.
"""
