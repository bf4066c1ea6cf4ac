"""Control groups: where they are, what is written into them, and what is read out of them again.

    layout        the hierarchies of this host, a container's directory in each        (hot)
    files         making a cgroup, writing a limit                                    (hot)
    limits_v1/v2  linux.resources as (file, value, field of the config)               (hot); limits_rare the rest of it
    failures      what a refused write means, and what can still be done about it
    rootless      which cgroups a user may use; delegation: who owns a container's
    systemd       the systemd driver: unit, scope, properties; bus, bus_library: its D-Bus
    freezer       pause, resume; processes: who is inside
    stats_*, oom  what `events` tells; rdt: Intel's cache and memory bandwidth groups
    update        new limits for a running container; devices: its device rules, replaced

The stage (stages/cgroup.py) decides with these what a start does; engine/oci/ has the verbs.
"""
