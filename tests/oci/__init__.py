"""Conformance: the same test bodies run against pyrun-oci and against the runc and crun of this machine.

    runtime.py    the runtimes: where they are, which version, how they are called
    box.py        one bundle of a test and the container made from it: what a body works with
    terminal.py   the other ends: console sockets, notify sockets, pidfd sockets
    marks.py      @shows("create --pid-file"): what a body shows, and since when a reference knows it
    observing.py, bundles.py, lines.py  what test_catalogue.py has all runtimes do beside one another
    catalogue.py  everything that has to be shown: commands, flags, fields of config.json; the stated gaps
    table.py      prints the table from the verdicts of one or more runs
    test_*.py     the bodies

What decides: the OCI runtime specification 1.3 for config.json, runc's manual for the command line. Beside a body that
no reference can run stands, in our words, the sentence that decides. A body that fails for a reference says so by
`differs={"crun": "why"}`; any other failure of a reference is a failure of the body.

    tests/lab/enter build/venv/bin/python -m pytest tests/oci                    # or: make conformance
    tests/lab/enter build/venv/bin/python -m pytest tests/oci -k "exec and runc"
"""
