"""From an OCI config to a list of operations; their encoding and their explanation.

    operations.py   the values a plan is made of
    plan.py         which stage adds its operations when; how a plan is written down for init
    explain.py      what a plan says to a reader; by kind of operation: explain_kinds.py, explain_lifecycle.py,
                    explain_mounts.py, explain_process.py

Nothing is done here: init (csrc/init.c) and the planner's stages carry a plan out.
"""
