"""Operations: the values a plan is made of.

An operation says what is to be done (`mount proc on /proc`), not how. From one list of them come the
execution (csrc/init.c inside the container, the stages outside), `--explain`, `--dry-run`, the wording of
errors and the tests. Words, shell equivalent and check of each kind are in `catalogue/`,
so that a start which explains nothing does not load them; who performs it in csrc/init.c or `performers.py`.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.plan.job import Job


class Operation:
    """One step. kind: its name (`OP_<KIND>` in csrc/ops.h if init executes it); args: str or int."""

    __slots__ = ("args", "kind")

    def __init__(self, kind: str, *args: str | int) -> None:
        self.kind = kind
        self.args = args

    def __repr__(self) -> str:
        return f"{self.kind}({', '.join(map(repr, self.args))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Operation) and (self.kind, self.args) == (other.kind, other.args)

    def __hash__(self) -> int:
        return hash((self.kind, self.args))


# The first number a passed descriptor may have in init: below are those every plan has (csrc/ops.h) and seccomp's.
FIRST_PASSED = 16


def descriptor(job: Job, kind: str, *args: str | int) -> int:
    """Note that init needs a descriptor of the planner's; returns the number it will have there.

    Nothing is opened here: that is descriptors.py, just before the clone. kind: one of its table.
    """
    job.descriptors.append((kind, args))
    return FIRST_PASSED + len(job.descriptors) - 1
