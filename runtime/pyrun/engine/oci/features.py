"""`pyrun-oci features`: what this runtime knows, whatever this machine can do. Source: runtime-spec 1.3 features.md.

Every list is the table that the code itself goes by, so that nothing is promised that is not there.
"""

from __future__ import annotations

from typing import Any

from pyrun import __version__
from pyrun.spec import (
    capabilities,
    check_rare,
    check_table,
    config,
    mount_options,
    seccomp,
    seccomp_check,
    seccomp_compile,
)

OCI_VERSION_MIN = "1.0.0"

# Annotations of config.json that change what the runtime does; a final dot means every name that begins so.
UNSAFE_ANNOTATIONS = ["org.systemd.property."]


def features() -> dict[str, Any]:
    """The Features structure."""
    annotations = {
        "io.pyrun.version": __version__,
        "org.opencontainers.runc.checkpoint.enabled": "false",  # the key that callers know
    }
    if libseccomp():
        annotations["io.github.seccomp.libseccomp.version"] = libseccomp()
    return {
        "ociVersionMin": OCI_VERSION_MIN,
        "ociVersionMax": config.OCI_VERSION,
        "hooks": list(check_table.HOOK_KINDS),
        "mountOptions": mount_options.known(),
        "linux": _linux(sorted(check_table.NAMESPACES)),
        "annotations": annotations,
        "potentiallyUnsafeConfigAnnotations": UNSAFE_ANNOTATIONS,
    }


def libseccomp() -> str:
    """Its version, "" where there is none."""
    try:
        return seccomp_compile.version()
    except Exception:  # noqa: BLE001  (no library, or one that cannot be loaded: a feature less)
        return ""


def _linux(namespaces: list[str]) -> dict[str, Any]:
    yes = {"enabled": True}
    return {
        "namespaces": namespaces,
        "capabilities": list(capabilities.NAMES),
        "cgroup": dict.fromkeys(("v1", "v2", "systemd", "systemdUser", "rdma"), True),
        "seccomp": {
            "enabled": bool(libseccomp()),
            "actions": sorted(seccomp_check.ACTIONS),
            "operators": sorted(seccomp_check.OPERATORS),
            "archs": sorted(seccomp_check.ARCHITECTURES),
            "knownFlags": sorted(seccomp.FLAGS),
            "supportedFlags": sorted(seccomp.FLAGS),
        },
        "apparmor": yes,
        "selinux": yes,
        "intelRdt": {**yes, "schemata": True, "monitoring": True},
        "memoryPolicy": _memory_policy(),
        "mountExtensions": {"idmap": yes},
        "netDevices": yes,
    }


def _memory_policy() -> dict[str, list[str]]:
    table: Any = check_rare.MEMORY_POLICY.table
    return {"modes": list(table["mode"].words), "flags": list(table["flags"].rule.words)}
