"""The values a network namespace begins with, whatever the machine's own are.

The kernel copies net.ipv4.conf of the initial namespace into every new one (net.core.devconf_inherit_init_net is 0), so
on a machine with ip_forward=1, any with Docker, a sandbox would begin as a router. IPv6 begins with the kernel's own
values; with devconf_inherit_init_net=1, where it does not, forwarding alone is set.
Source: Documentation/networking/ip-sysctl.rst; net/ipv4/devinet.c (ipv4_devconf, ipv4_devconf_dflt).
"""

from __future__ import annotations

from pathlib import Path

CONF = Path("/proc/sys/net/ipv4/conf")
BEGIN = {
    "accept_redirects": "1", "arp_evict_nocarrier": "1", "igmpv2_unsolicited_report_interval": "10000",
    "igmpv3_unsolicited_report_interval": "1000", "secure_redirects": "1", "send_redirects": "1", "shared_media": "1",
}  # fmt: skip
ROUTING = "accept_source_route"  # 1 for interfaces to come, 0 for all together
OF_LOOPBACK = ("disable_policy", "disable_xfrm")  # 1, and not inherited


def begin() -> None:
    """Set them in the calling process's network namespace, which has no interface yet but lo. Raises OSError."""
    # first: the kernel sets others with it
    for path in (CONF / "all/forwarding", Path("/proc/sys/net/ipv6/conf/all/forwarding")):
        if path.exists() and path.read_text() != "0\n":
            path.write_text("0")
    for place in ("all", "default", "lo"):
        for path in (CONF / place).iterdir():
            wanted = "1" if path.name == ROUTING and place != "all" else BEGIN.get(path.name, "0")
            if place == "lo" and path.name in OF_LOOPBACK:
                continue
            if path.read_text() != f"{wanted}\n":
                path.write_text(wanted)


if __name__ == "__main__":
    begin()
