"""The plumbing of the host: from the state that we want to the commands that bring it about.

Read in this order::

    facts     what the host has: interfaces, addresses, endpoints, tools, seeds
    wanted    (configuration, facts) -> what must be there, as data, with the reason of each piece
    iptables, nftables, routing, sysctl, rt_tables
              one part each: what is there (observe), and the steps from one state to another (steps)
    survey    all of these parts, as they are and as they shall be
    plan      a step: what, why, the commands, and those that take it back; the plan as a shell script
    apply     run the steps; when one fails, take back those that were done
    plumbing  up and down: the whole of it, in one function each
    check     every piece as OK, MISSING or MISMATCH
    run       the one place where commands run
    record    what the host was like before, for ``down``
    learned   the addresses that dnsmasq has learned, across ``down`` and ``up``
"""
