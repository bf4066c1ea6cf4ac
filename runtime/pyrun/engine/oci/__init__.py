"""pyrun-oci's verbs: one recipe a verb, as runc names them.

    prepare.py        a bundle becomes a Launch; quick.py  what csrc/quick.c goes by, without an interpreter
    create.py         all but the command, which waits; start.py  lets it go on; run.py  both in one
    delivery.py       terminal, pid and pidfd for the caller; notify_socket.py  systemd's two protocols
    hooks.py          those called from outside; seccomp_agent.py  the listener of SCMP_ACT_NOTIFY
    exec_.py          one process more
    state.py          one container; list.py  all of them; ps.py  its processes; events.py  what it uses
    kill.py           a signal; pause.py  and resume; update.py  new limits
    delete.py         what `create` made, taken away
    spec.py           a config.json to begin with; features.py  what this runtime knows

Source: runtime-spec runtime.md, runc(8).
"""
