"""One kernel idea a file. They run in this order, and never import each other:

    namespaces   clone flags, names of the host, namespaces made later or joined
    cgroup       make, limit, join; what of it the container sees
    mounts       the config's mounts, one by one
    rootfs       the root, /dev, masks, pivot
    network      bridge, veth, address, ports (outside); loopback (inside)
    security     capabilities, identity, no_new_privs, seccomp
    hooks        the programs of the bundle's author, at six points of the lifecycle
    process      limits, session, terminal, directory, environment, execve

Each has at most, in this order: `check` (pure), `plan` (operations for init), `before`/`outside` (the planner's
operations, with `PERFORM` to execute them), `undo` (lines for the undo list, written before anything is done).
"""
