"""`uv run bench`: CPU, latency and memory of the gateway, its components and other gateways.

All processes run on this machine: a mock of a provider (`mock`), the load
(`generator`), and the targets between them (`targets`, `peers`). `measure` takes
one slice of one target, `scenarios` lists the slices, `summary` computes figures
and aims from them, `report` and `plot` show these. `soak` is a separate run that
looks for leaks, `hostile` one with a hostile caller.

Rules
- Figures are for one machine: compare the rows of one run, not of two.
- Targets are measured in turns, in slices of seconds, so that whatever else the
  machine does hits all of them alike; a figure is the median over the rounds.
- Every answer is checked. A wrong answer of lmchat or its components ends the run with exit code 1.
- Times are seconds of the machine's monotonic clock, which all processes share.
"""
