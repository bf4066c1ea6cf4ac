"""From argv to one engine call, and back to text and an exit status. Nobody else prints or exits.

pyrun:

    main.py        the entry: verb, options, engine, outcome
    warm.py        an interpreter that waits with all of it loaded; warm_request.py  whom it serves;
                   warm_launcher.py  what it has that one do; warm_rehearsal.py  what it plans before
    options.py     the command line as Docker reads it, by tables.py  every verb and option as data; help.py  --help
    unknown.py     what Docker has and is not there yet, and typing errors
    verbs.py       one function a verb; verbs_cold.py  images and the machine; verbs_network.py, verbs_port.py
    text.py        plain output and tables; render.py  progress on a terminal, by rich; traces.py  tracebacks

pyrun-oci:

    oci.py         the entry; oci_verbs.py  the commands nobody waits for
    oci_options.py  the command line as runc reads it, by oci_tables.py  as data; oci_help.py  --help
    oci_log.py     runc's log; oci_trail.py  what --debug tells; oci_words.py  the words of errors that callers look for
"""
