"""What the tables, chains, sets and maps of the firewall are called. Nothing is imported: hot code uses these too.

`inet pyrun` decides about packets that are routed, `bridge pyrun` about frames that come out of a container. A further
run directory's have a letter in their names (tags.py).

    ports        protocol . port -> container address . port                     -p 8080:80
    ports_at     host address . protocol . port -> container address . port      -p 192.0.2.1:8080:80
    closed       protocol . port             published, but the host's own firewall would not let it in
    closed_at    host address . protocol . port                                  the same of one address
    subnets      the subnets of all networks                                     what is masqueraded
    bridges      the bridges of all networks
    gateways     bridge . address of a gateway of its network                    where the resolver is asked
    further      bridge . MAC of its gateway                                     beyond the first of a network
    inside       bridge . bridge -> accept | drop (icc=false)                    traffic within one network
    own          bridge . bridge                                                 the same pairs
    towards      bridge -> drop                                                  unpublished ports, other networks
    sources      bridge -> goto within                                           what an --internal network sends out
    isolated     bridge                                                          --isolate
    adopted      bridge                                                          of `network adopt`
    switched     address family                                                  pyrun has switched its forwarding on
    guests       container address                                               of a container of ours on such a bridge
    policed      container address                                               it has an egress policy
    allowed      container . destination . protocol . port, ranges               its policy: may be reached
    denied       container . destination, ranges                                 its policy: must not
    admitted     container . destination                                         its policy: answers of the resolver
    admitted_at  container . destination . protocol . port                       the same for a name with a port

    macs         link . MAC                  what a container's link may send as its own
    addresses    link . address
    unpinned     link                        its container finds its address itself: only the MAC counts
    alone        link                        icc=false: it hears nobody but the host itself
    mute         link                        a policy that nothing else could enforce: no frames from or to others
    routers      MAC                         the gateways of networks with such bridges
    entrances    MAC -> MAC                  of such a gateway -> of the bridge the frame is on

Those with a 6 are the same for IPv6. "inet" hash sets cost the same with one element as with thousands; the sets of
ranges are asked only for a new connection of a policed container.
"""

# Of the further bridges of a network: that of no address a container can have. On the first one it is local too.
FURTHER_MAC = "02:42:ff:ff:ff:fe"

PORTS, PORTS_AT, SUBNETS = "ports", "ports_at", "subnets"
PORTS6, PORTS6_AT, SUBNETS6 = "ports6", "ports6_at", "subnets6"
POLICED, ALLOWED, DENIED = "policed", "allowed", "denied"
POLICED6, ALLOWED6, DENIED6 = "policed6", "allowed6", "denied6"
ADMITTED, ADMITTED_AT, ADMITTED6, ADMITTED6_AT = "admitted", "admitted_at", "admitted6", "admitted6_at"
CLOSED, CLOSED_AT, CLOSED6, CLOSED6_AT = "closed", "closed_at", "closed6", "closed6_at"
GATEWAYS, GATEWAYS6 = "gateways", "gateways6"
BRIDGES, FURTHER, INSIDE, OWN, TOWARDS, SOURCES, ISOLATED, ADOPTED, GUESTS, GUESTS6 = (
    "bridges", "further", "inside", "own", "towards", "sources", "isolated", "adopted", "guests", "guests6",
)  # fmt: skip
SWITCHED = "switched"
MACS, ADDRESSES, ADDRESSES6, UNPINNED = "macs", "addresses", "addresses6", "unpinned"
ALONE, MUTE, ROUTERS, ENTRANCES = "alone", "mute", "routers", "entrances"

# Chains which a start asks for (health.py): a chain without its rules is as bad as none.
FORWARD, FRAMES = "forward", "frames"
