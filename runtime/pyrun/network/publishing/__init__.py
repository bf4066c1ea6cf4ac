"""Published ports: what -p, -P and --expose mean, who has which port of the host, and where it leads.

option.py       the words of the options; ports.py  claims (hot)
choosing.py     free ones; reservation.py  the sockets that hold them (hot); occupant.py  whose else
publication.py  where they lead, and what takes them back (hot)
host_firewall.py  is there another firewall? (hot); host_rules/  what its rules do with a port
shutting.py     closed to the outside; reach.py  from where a port is reached
"""
