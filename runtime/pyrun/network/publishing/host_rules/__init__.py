"""The rules by which this host filters what enters it, read and judged; whose they are does not matter for that.

    reading.py    asks `nft` and `iptables-save` for what the kernel has now, and which interfaces lead outside
    nftables.py   the rules of `nft -j` as judge.py wants them
    iptables.py   those of iptables-save, which ufw uses and which nft cannot show in full
    judge.py      would a new connection from outside to this port be let in?

Cold: asked only where host_firewall.suspected() says that somebody filters. Nothing here changes anything.
"""
