"""Device rules among which some deny: rare, and then it matters which came before which.

Of one kind of access to one device the last rule that fits decides, as with v1's lists. Two things v2's program, which
asks a rule by itself about all that is wanted at once, would get wrong: `allow r` and `allow w` make a rule `rw`, and
what an allow takes back of a denial is no longer in the denial. Beyond v1, which ignores it: a denial may take one
device out of what is allowed for all of a kind. Source: cgroup-v1/devices.rst; Linux security/device_cgroup.c.
"""

from __future__ import annotations

Rule = tuple[bool, str, int, int, str]  # as device_rules.py has it


def composed(found: list[Rule], *, everything: bool) -> list[Rule]:
    """*found* as rules that come to the same. everything: it follows a rule that allows every device."""
    kept: list[Rule] = []
    for rule in found:
        kept = _allowed(kept, rule) if rule[0] else [*[each for each in kept if each != rule], rule]
    return [rule for index, rule in enumerate(kept) if not everything or _says_something(kept[:index], rule)]


def _says_something(before: list[Rule], rule: Rule) -> bool:
    """Where everything is allowed: whether it denies, or takes back some of a denial."""
    return not rule[0] or any(
        not each[0] and _overlap(each, rule) and set(each[4]) & set(rule[4]) for each in before
    )


def _allowed(kept: list[Rule], rule: Rule) -> list[Rule]:
    """*kept* and then *rule*, which takes back what it covers, with what was allowed of the same device before it."""
    access, denied = set(rule[4]), set()
    left: list[Rule] = []
    for each in reversed(kept):
        own = set(each[4])
        if not each[0]:
            if _covers(rule, each):
                own -= set(rule[4])
            if _overlap(each, rule):
                denied |= own
        elif each[1:4] == rule[1:4]:
            access |= own - denied
            own -= access
        if own:
            left.append((*each[:4], _text(own)))
    return [*reversed(left), (*rule[:4], _text(access))]


def _text(access: set[str]) -> str:
    return "".join([letter for letter in "rwm" if letter in access])


def _overlap(one: Rule, other: Rule) -> bool:
    """Whether there are devices that both mean."""
    numbers = zip(one[2:4], other[2:4], strict=True)
    return one[1] == other[1] and all(-1 in pair or pair[0] == pair[1] for pair in numbers)


def _covers(wide: Rule, narrow: Rule) -> bool:
    """Whether *wide* means every device that *narrow* does."""
    numbers = zip(wide[2:4], narrow[2:4], strict=True)
    return wide[1] == narrow[1] and all(number in (-1, other) for number, other in numbers)
