"""The resolver: one process for all networks, started by the first question (csrc/guard_dns.c), gone with the guard.

    container ── question to its gateway ──► guard's socket ──► here
                                                                 │ whose address is it? which networks is that
                                                                 │ container on? (names.py: the leases, nothing else)
                 ◄── NAME, ALIAS, HOSTNAME, ID, NAME.NETWORK ────┤ known there: answered
                                                                 │ only on --internal networks: REFUSED
                 ◄── the host's own name servers ────────────────┘ or --dns: forwarded (forward.py)

    server.py      the loop: the guard's messages, questions by UDP, whose turn it is
    streams.py     questions by TCP, and their deadlines
    names.py       leases -> names, read again when a directory changed, and answers from them
    inside.py      sockets of a container's own namespace, for servers of its own
    forward.py     questions under way outside; upstream.py  the servers, which of them answer
    egress_view.py what an egress policy has to say
    cache.py       answers of outside for a few seconds; budget.py  who may ask how much
    wire.py        the messages, by dnslib; nobody else knows their form

It reads what hostile containers and the world send. So it holds no capability (or CAP_NET_ADMIN alone, where egress
policies exist), can write no file, and gets nothing back by an execve: the launcher saw to that. Whatever it cannot
read is dropped or answered FORMERR; every queue, cache and wait is bounded. Kept lean: no asyncio, logging, json.
"""
