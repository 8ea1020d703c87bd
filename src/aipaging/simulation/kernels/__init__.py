"""Compiled inner loops: random numbers, arrivals, work, service disciplines, tallies.

Every kernel works in place on the cells of a station: `cells[row, 0]` holds instants (arrival, then departure),
`cells[row, 1]` work, `cells[row, 2]` the instant at which the packet was sent, and, where somebody sends them,
`cells[row, 3]` the tokens of its prompt; a row is one tenant at one hop. A kernel
serves what can be decided up to a horizon and counts it in `done`; the rest waits for the next stretch of time. That
is exact, because a decision at an instant needs no arrival after it. A lost packet gets the instant NaN.
"""
