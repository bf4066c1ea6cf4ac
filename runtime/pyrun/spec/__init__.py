"""What a container is to be, in OCI's words (snake_case in Python, the spec's own keys in config.json).

    oci.py             the types of config.json and its sections

Of an image:

    config.py          `run`'s options and an image become a config; defaults.py  what Docker gives without being asked
    values.py          the options' values; users.py  -u; capabilities.py  --cap-add and --cap-drop
    env_file.py        --env-file; volumes.py  an image's VOLUME

Of a bundle:

    config_file.py     reads config.json; config_text.py  what is wrong with a text it refused
    check.py           checks it, by check_table.py  every field, and check_rules.py  the kinds of rules;
                       check_rare.py  rare sections; check_ids.py  what user and time namespaces ask of the rest

Of both, sections of their own:

    mount_options.py   what each option of a mount is to the kernel
    scheduling.py      words about scheduling, as numbers; sysctls.py  which parameters are a container's own
    seccomp.py         the compiled filter, found in the cache; seccomp_compile.py  compiles it
    seccomp_profile.py  Docker's default and the user's files; seccomp_check.py  what makes one valid;
                       seccomp_generate.py  made seccomp_default.json
"""
