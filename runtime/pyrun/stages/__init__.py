"""One kernel idea a file; they never import each other. In the order in which each has its main part in a start:

    namespaces   clone flags, namespaces made later or joined, the names that live in them
    cgroup       make, limit, join; what of it the container sees
    rootfs       the root, /dev, masks; once the mounts are there the pivot
    mounts       the config's mounts, one by one
    network      bridge, veth, address, ports: the planner's, while init mounts; then init waits for GO
    hooks        the programs of the bundle's author, at six points of the lifecycle
    security     labels, identity, capabilities, no_new_privs, seccomp
    process      who may look at init, session, terminal, limits, directory, environment, execve

Step by step it is compose() in plan/plan.py, which interleaves them where the kernel wants it: createContainer hooks
come before the pivot and startContainer hooks after security; process has the first operation and the last.

Each has at most, in this order: `check` (pure), `plan` (operations for init), `before`/`outside` (the planner's
operations, with `PERFORM` to execute them), `undo` (lines for the undo list, which is written before `before`).

A `job` is what they read beside the config, and where they note something for one another or for launch.py:

    id name run_dir keep    the container, its run directory and the one that lasts (for a bundle that is the bundle)
    layers, or root         the image's from the top down, or the directory that is the root; bundle: its directory
    namespaces              their kinds; user_namespace: one of them is; loopback: lo is for init to bring up; on_host:
                            the network namespace that is joined is the host's
    hierarchies cgroups     what is mounted where, and the container's directory in each
    driver                  cgroupfs, systemd or disabled; unit, slice: systemd's words for it; parents: directories to
                            be made above; rdt: the resctrl group; unprivileged: not the machine's root; late: joined
                            after the clone
    early                   init waits at its very beginning: for that, or for the maps of its user namespace
    rootless                not even root of a user namespace of pyrun's; rootless_engine: that; fuse: its overlay is
    seccomp                 (descriptor, flags) of the filter; window: rows and columns of the terminal
    descriptors             what init gets by number (plan/operations.py); preserve: how many of the caller's, which
                            come out as preserved; start_fd: where `create` waits for `start`
    late_readonly           what turns read-only when all is mounted; volumes: directories of its own, kept: those
                            that another mount covers, to be shown over it again
    rm reaper               --rm (nothing is synced), --init; dry_run: nothing may be touched
    oci                     in runc's words; no_pivot, no_new_keyring: its options; keyring: the container's, by name;
                            made: those of its namespaces that are new; notify: NOTIFY_SOCKET is to be forwarded, from
                            notify_socket
    entering                this is an exec; reference: what the user calls the container, pid: of its init; no_seccomp;
                            running_fd: to tell the waiting parent of -d

With `run` it also has what the network's request has (network/requests.py).
"""
