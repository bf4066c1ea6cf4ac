"""The sections of linux.resources that few configs have: blockIO, hugepageLimits, network, rdma, unified.

Same form as limits_v1.py and limits_v2.py. `a|b` as a file: whichever there is (with BFQ, the weights are in files of
its own); the values are parted likewise where they differ.
Source: runtime-spec config-linux.md#block-io and following, blkio-controller.rst, cgroup-v2.rst (IO, HugeTLB, RDMA).
"""

from __future__ import annotations

from pyrun.spec.check_rules import wrong

from .limits_v2 import RESOURCES, Limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.spec.oci import BlockIO, Resources, Throttle, ThrottleDevice, WeightDevice

# (field of blockIO, v1's file, v2's word in io.max)
THROTTLES: tuple[tuple[Throttle, str, str], ...] = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
)
_UNIFIED = "linux.resources.unified: "


def v1(resources: Resources) -> list[Limit]:
    """The rare limits of cgroup v1."""
    if resources.get("unified"):
        raise wrong(RESOURCES + "unified", "is for cgroup v2, and this host's controllers are cgroup v1")
    found = _blkio(resources.get("blockIO") or {}) + _hugetlb(resources, "limit_in_bytes")
    network = resources.get("network") or {}
    if network.get("classID"):
        found.append(("net_cls.classid", str(network["classID"]), "network.classID"))
    for each in network.get("priorities") or ():
        found.append(("net_prio.ifpriomap", f"{each['name']} {each['priority']}", "network.priorities"))
    return found + _rdma(resources)


def v2(resources: Resources) -> list[Limit]:
    """The rare limits of cgroup v2."""
    network = resources.get("network") or {}
    for key in ("classID", "priorities"):
        if network.get(key):
            rule = "cannot be had with cgroup v2, which has no net_cls and net_prio controllers"
            raise wrong(f"{RESOURCES}network.{key}", rule)
    found = _io(resources.get("blockIO") or {}) + _hugetlb(resources, "max") + _rdma(resources)
    for key, value in (resources.get("unified") or {}).items():
        found += [(key, line, f"unified: {key}") for line in _unified(key, value)]
    return found


def _unified(key: str, value: object) -> list[str]:
    """The lines to write into file *key*, one at a time, as the kernel wants those of several devices."""
    if "/" in key or key in (".", "..") or not key.isprintable():
        raise wrong(f"config.json: {_UNIFIED}{key}", "must be the name of a file, without a slash")
    if key.find(".") < 1 or key[-1:] in "?|" or "|" in key:
        raise wrong(f"config.json: {_UNIFIED}{key}", "must be a name like CONTROLLER.FILE")
    if not isinstance(value, str):
        raise wrong(f"config.json: {_UNIFIED}{key}", "must be a text", value)
    return [line for line in value.split("\n") if line] or [""]


def _device(item: WeightDevice | ThrottleDevice) -> str:
    return f"{item['major']}:{item['minor']}"


def _blkio(section: BlockIO) -> list[Limit]:
    found = []
    if section.get("weight"):
        found.append(("blkio.weight|blkio.bfq.weight", str(section["weight"]), "blockIO.weight"))
    if section.get("leafWeight"):
        found.append(("blkio.leaf_weight", str(section["leafWeight"]), "blockIO.leafWeight"))
    for item in section.get("weightDevice") or ():
        if item.get("weight"):
            file = "blkio.weight_device|blkio.bfq.weight_device"
            found.append((file, f"{_device(item)} {item['weight']}", "blockIO.weightDevice"))
        if item.get("leafWeight"):
            value = f"{_device(item)} {item['leafWeight']}"
            found.append(("blkio.leaf_weight_device", value, "blockIO.weightDevice"))
    for key, file, _ in THROTTLES:
        for row in section.get(key) or ():
            found.append((file, f"{_device(row)} {row['rate']}", f"blockIO.{key}"))
    return found


def io_weight(weight: int) -> int:
    """io.weight 1..10000 for blkio.weight 10..1000."""
    return 1 + (weight - 10) * 9999 // 990


def _io(section: BlockIO) -> list[Limit]:
    rows = [item.get("leafWeight") for item in section.get("weightDevice") or ()]
    for field, given in (("leafWeight", section.get("leafWeight")), ("weightDevice", any(rows))):
        if given:
            raise wrong(
                f"{RESOURCES}blockIO.{field}", "cannot be had with cgroup v2, which has no leaf weights"
            )
    found = []
    if weight := section.get("weight"):
        found.append(("io.bfq.weight|io.weight", f"{weight}|{io_weight(weight)}", "blockIO.weight"))
    for item in section.get("weightDevice") or ():
        if item.get("weight"):
            value = f"{_device(item)} {item['weight']}|{_device(item)} {io_weight(item['weight'])}"
            found.append(("io.bfq.weight|io.weight", value, "blockIO.weightDevice"))
    for key, _, word in THROTTLES:
        for row in section.get(key) or ():
            # v1 takes 0 for "no limit", v2 refuses it
            value = f"{_device(row)} {word}={row['rate'] or 'max'}"
            found.append(("io.max", value, f"blockIO.{key}"))
    return found


def _hugetlb(resources: Resources, suffix: str) -> list[Limit]:
    """The limit on pages in use, and the one on pages reserved (Linux 5.7), without which the first ends in SIGBUS."""
    found = []
    for item in resources.get("hugepageLimits") or ():
        size, limit = item["pageSize"], str(item["limit"])
        found.append((f"hugetlb.{size}.{suffix}", limit, "hugepageLimits"))
        found.append((f"hugetlb.{size}.rsvd.{suffix}?", limit, "hugepageLimits"))
    return found


def _rdma(resources: Resources) -> list[Limit]:
    found = []
    for device, item in (resources.get("rdma") or {}).items():
        words = [
            f"{word}={value}"
            for word, value in (
                ("hca_handle", item.get("hcaHandles")),
                ("hca_object", item.get("hcaObjects")),
            )
            if value is not None
        ]
        if words:
            found.append(("rdma.max", " ".join([device, *words]), f"rdma.{device}"))
    return found
