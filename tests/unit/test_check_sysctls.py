"""linux.sysctl: only what is the container's own, in both notations, and no way around it."""

from __future__ import annotations

import pytest

from pyrun.errors import UsageError
from pyrun.spec import sysctls

ALL = dict.fromkeys(("network", "ipc", "uts", "user", "mount"), "")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/5.rp_filter", "net/ipv4/conf/eth0.5/rp_filter"),
        ("net/ipv4/conf/eth0.5/rp_filter", "net/ipv4/conf/eth0.5/rp_filter"),
        ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
    ],
)
def test_where_a_parameter_is(name: str, file: str) -> None:
    assert sysctls.path(name) == file
    sysctls.check({name: "1"}, "x", ALL)


@pytest.mark.parametrize(
    "name",
    ["net.", ".net.x", "net..x", "net/../kernel/core_pattern", "net.//.kernel.core_pattern", "net/./x", "/net/x",
     "net.ipv4.x\n", "net.ipv4.\0", "net.ipv4.conf./.x", "net/ipv4/.."],
)  # fmt: skip
def test_names_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(UsageError, match=r"^x\["):
        sysctls.check({name: "1"}, "x", ALL)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("net.core.somaxconn", "network"), ("kernel.shmmax", "ipc"), ("kernel/msgmax", "ipc"),
     ("fs.mqueue.msg_max", "ipc"), ("kernel.domainname", "uts"), ("user.max_user_namespaces", "user")],
)  # fmt: skip
def test_a_namespace_is_needed(name: str, kind: str) -> None:
    """One of the container's own, or a joined one that is not the one pyrun is in."""
    sysctls.check({name: "1"}, "x", {kind: ""})
    sysctls.check({name: "1"}, "x", {kind: "/nothing/here"})  # whoever joins it says so
    ours = "/proc/self/ns/" + {"network": "net"}.get(kind, kind)
    for given in ({}, {"pid": ""}, {kind: ours}):
        with pytest.raises(UsageError, match=f"needs a {kind} namespace of the container's own"):
            sysctls.check({name: "1"}, "x", given)


@pytest.mark.parametrize(
    "name",
    ["kernel.core_pattern", "kernel/core_pattern", "kernel.shmmax.x", "kernel.shm", "vm.swappiness", "fs.file-max",
     "fs.mqueue", "fs.mqueue.a.b", "network.x", "kernel", "user", "net", "kernel.domainname.x", "kernel/net.core"],
)  # fmt: skip
def test_the_host_s_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is not separate for a container"):
        sysctls.check({name: "1"}, "x", ALL)


def test_the_host_name_has_its_own_field() -> None:
    with pytest.raises(UsageError, match=r"belongs into config\.json's hostname"):
        sysctls.check({"kernel/hostname": "x"}, "x", ALL)


def test_a_value_is_one_line() -> None:
    """CVE-2022-0811: one value must not become two settings."""
    with pytest.raises(UsageError, match="must not hold a line break"):
        sysctls.check({"kernel.shmmax": "1\nkernel.core_pattern=|/x"}, "x", ALL)
    sysctls.check({"kernel.shmmax": "1+kernel.core_pattern=|/x"}, "x", ALL)  # one value, whatever is in it
