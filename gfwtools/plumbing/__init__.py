"""The plumbing of the host: from the wanted state, as data, to the steps that make it.

Read in this order::

    facts     what the host has: interfaces, addresses, endpoints, seeds
    choice    which backend it has: the one decision that update, up, bootstrap and the checks use
    wanted    (configuration, facts) -> what must be there, as data, with the reason of each piece
    iptables, nftables, routing, sysctl, rt_tables
              one part each: what is there (observe), and the steps from one state to another (steps)
    backend   what iptables and nftables have in common: all that the rest of gfwtools knows of them
    survey    all of these parts: the present state and the wanted state
    plan      what a part is: its pieces, and its steps
    apply     run the steps; when one fails, undo those that were done
    updown    up and down: the whole of it, in one function each
    record    what the host was like before, for ``down``
    learned   the addresses that dnsmasq has learned, across ``down`` and ``up``
"""
