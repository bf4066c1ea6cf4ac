"""The network: what stages/network.py calls, and the only package that knows pyroute2.

One container, at its start (all hot):

    requests.py     what --network and its companions ask for: endpoints, in order
    claims.py       who holds an address, a published port or a name; leases.py  the next free address of a network
    endpoint.py     one interface: addresses, operations, undo; wiring.py  all of a container's
    attach.py       how each operation is performed
    messages.py     templates which pyroute2 encoded once, filled in
    elements.py     elements of the firewall's sets and maps: what a link may send, published ports
    netns.py        names in /run/netns; resolver.py  resolv.conf
    announcing.py   tells neighbours of an address that was asked for
    health.py       does a network still stand as it was made?
    mac_claims.py     whose is a MAC address that somebody chose? (the one that is not hot)
    publishing/     published ports, with a map of its own

While it runs:

    live_undo.py        what is to be undone too, and another record; disconnecting.py  one interface less
    default_route.py  which interface the default routes go by

Networks, made and healed:

    design.py       what a network is to be; subnets.py  a free subnet; records.py  the files
    bridge.py       makes, heals and removes; reloading.py  all of them; rebuilding.py  the tables anew
    shards.py       more than 1,023 ports
    cables.py       puts the links of running containers back into their bridge
    templates.py    encodes the templates; nft.py  nftables messages by pyroute2's classes
    firewall/       the tables `inet pyrun` and `bridge pyrun`, and what other firewalls need; egress/  policies
    forwarding.py   switched on while containers need it, for them alone
    host.py         what was changed on the host, and how it was before; events.py  what was healed; counters.py
    ownership.py    several run directories on one host: whose is what; tags.py  the names that follow
    guard.py, guard_start.py  the process that watches (csrc/guard.c); dns/  the resolver it starts

Other ways to be wired:

    drivers/        macvlan, ipvlan, l2, cni, joined namespaces; shaping.py  rates and faults
    adopt.py        a bridge made by hand; foreign_leases.py  who is on it
    net_devices.py  OCI's netDevices
    user_mode/      without root: pasta.py, slirp.py

The hot modules import nothing but a few C modules of the standard library; a start that finds its network
standing loads no other. What is here touches only links whose name begins with `py`, the tables `pyrun` (of a
further run directory `pyrun-A`), and marked rules; everything can be rebuilt from the files below run/networks
and run/ports.
"""
