"""One recipe per verb. A recipe calls; the stages, the store and the network do.

A start:

    run.py          `pyrun run`, as a table of contents; run_options.py  values that are wrong on this machine
    prepare.py      options and an image become a Launch: everything decided, and what is scarce claimed (address,
                    ports, a name in /run/netns); a network that is missing is made
    stdio.py        where the process reads and writes; background.py  -d; explaining.py  --explain
    bundle.py       `run --bundle`: config.json decides
    rootless.py     what becomes of a start when an ordinary user is behind it

While it runs:

    exec_.py        one process more; entering.py  what `pyrun-oci exec` has in common with it
    ps.py           the containers as rows; logs.py  what one has written
    kill.py         one signal; stop.py  asked first; rm.py  what is left, and the name; ending.py  nothing left

Its network, changed:

    connect.py      one interface more or less; connected.py  those its record tells of
    name_files.py   resolv.conf and hosts follow; policy.py  what it may reach
    port.py         published ports; port_words.py  which of them the words mean

Networks:

    network.py      create, ls, rm, prune, reload, adopt; network_inspect.py

Images:

    images.py       the list, and rmi; pull.py  from a recipe or a registry; fetch.py  blob by blob
    load.py         out of a file

The machine:

    reconcile.py    the quick look for the dead at every start, and what an undo list cannot do itself
    system.py       all that crashes leave behind
    info.py         machine and program

    oci/            the verbs of pyrun-oci, in runc's words
"""
