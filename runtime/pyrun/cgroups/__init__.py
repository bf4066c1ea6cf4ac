"""Control groups: where they are, what is written into them, and what is read out of them again.

    layout        the hierarchies of this host, a container's directory in each        (hot)
    files         making a cgroup, writing a limit                                    (hot)
    limits_v1     linux.resources as (file, value, field of the config), for v2 limits_v2  (hot); limits_rare the rest
    failures      what a refused write means, and what can still be done about it
    rootless      which cgroups a user may use; delegation: who owns a container's
    systemd       the systemd driver: unit and scope; systemd_properties: what a scope is told
    bus           its D-Bus, by bus_messages on the hot path, else by bus_library
    freezer       pause, resume; processes: who is inside
    stats_v1      what `events` tells, for v2 stats_v2; both by readings, with oom
    rdt           Intel's cache and memory bandwidth groups
    update        new limits for a running container; devices: its device rules, replaced

The stage (stages/cgroup.py) decides with these what a start does; engine/oci/ has the verbs.
"""
