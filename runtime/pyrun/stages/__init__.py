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
operations, executed by whom plan/performers.py names), `undo` (lines for the undo list, which is written before
`before`).

They read the config (spec/oci.py) and a `Job` (plan/job.py), the network stage its request (network/requests.py); what
one decides that another needs, compose() passes on.
"""
