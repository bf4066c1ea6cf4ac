"""pyrun: a container runtime with built-in networking. This file is the map; read the rooms in this order.

    cli/           argv -> one engine call; the only place that prints or exits
    engine/        one recipe per verb: run, exec, ps, stop ... each reads like a table of contents;
                   oci/ those of pyrun-oci, in runc's words: create start run exec kill delete state ...
    store/         what is on disk: images, layers, containers, the state directories of pyrun-oci
    spec/          options + image -> OCI config; defaults (Docker's), capabilities, users, seccomp
    plan/          OCI config -> Plan: operations as values, their encoding, their explanation
    stages/        one kernel idea a file, in the order of their main parts (plan/plan.py has every step):
                   namespaces cgroup rootfs mounts network hooks security process
    launch.py      the PARENT recipe: undo list, clone, network, hooks, GO, READY, monitor
    launching.py   the launching process: the container's parent, and then its monitor
    verdict.py     what init's report means for the user
    handshake.py   the messages between the planner and init, with the diagram
    birth.py       the last clone of a command that lives in a pid namespace where others live
    network/       bridge, leases, firewall: what stages/network.py calls; pyroute2 lives here
    cgroups/       v1, v2 and systemd's: what stages/cgroup.py calls
    registry/      the OCI distribution protocol
    descriptors.py what the planner opens for init; idmaps.py  the maps of a user's own user namespace
    sealing.py     how the binary is executed so that no container can write to it
    undo.py        replaying an undo list; device_rules.py  which devices a cgroup may use
    detach.py     what serves others too leaves the caller's cgroups
    linux.py       system calls 1:1; csrc/shim.c below it
    errors.py      every exception, drawn as a tree
    small: boot (where this installation is; boot_cold: without the bundle), jsonlite, digest, signals, notice,
           safe (texts for a terminal, a shell, int(), Go), host (what this machine can do)

and in C: csrc/launcher.c (seals the interpreter), csrc/init.c (executes the plan), csrc/monitor.c (stays with
the container), csrc/quick.c (start, state, kill and delete in the plain case), csrc/rootless.c (a user's namespace),
csrc/interpreter/ (Python, half-way).
"Plan in Python, execute in C, explain for free."
"""

import time

__version__ = "0.1.0"

# When the first line of Python ran: the launcher and the interpreter come before it (`--explain=json`).
STARTED_NS = time.monotonic_ns()
