"""From an OCI config to a list of operations; their encoding and their explanation.

    operations.py   the values a plan is made of
    job.py          what a start or an exec is about beside its config
    performers.py   who performs what is not init's
    plan.py         which stage adds its operations when; how a plan is written down for init
    catalogue/      one row a kind: its stage, its words, the shell's equivalent, how to see it
    explain.py      a whole plan as a document, for --explain

Nothing is done here: init (csrc/init.c) and the planner's stages carry a plan out.
"""
