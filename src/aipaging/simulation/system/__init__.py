"""The whole system in simulation: the real core under clocks, networks, disks and machines that fail, from one seed.

What is real: `core.paging` (step, evolve, wake_at, records, snapshots), `core.lease.holder`, `core.evidence` and
whatever `parts.Parts` is given (the composition hands in the controller's own table, list and `remaining`). What is a
reference model, because the original waits and talks: the engine's loop and effects (`controller`, `driver`), the
gateway's lease cache (`cache`, `gateway`, after the Lua filter), the sidecar's gate (`sidecar`), disk and network.

    schedule    what happens and when: one seed, one schedule
    kernel      true time, nodes with clocks of their own
    run         one schedule in, findings and a digest of the trace out
    checkers    judge from outside, in true time, what was forwarded, admitted, answered and stored
    mutants     planted bugs, each of which a checker has to find
    shrink      the least schedule that still fails
    campaign    many seeds, in parallel
"""
