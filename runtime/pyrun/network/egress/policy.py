"""What an egress policy says, and the file that keeps it while its container runs.

    mode none | dns | list       none: no connection to anybody; dns: names resolve; list: what follows
    dns                          of a list: every name may be resolved
    deny 169.254.169.254/32      never, whatever else is allowed
    allow 10.0.0.0/8 443 tcp     CIDR, port, range of ports or *, protocol or *
    domain *.example.org * *     a name, or all names below it; what it resolves to may be reached
    address 10.77.0.2            the container's addresses

A list of nothing but `deny` allows the rest.
"""

from __future__ import annotations

import posix

from pyrun.store import paths

# CIDR, port, protocol; the same of a domain.
Rule = tuple[str, str, str]


class Policy:
    """An egress policy; see above for what its parts mean."""

    __slots__ = ("addresses", "allow", "deny", "dns", "domains", "mode")

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.dns = False
        self.deny: list[str] = []
        self.allow: list[Rule] = []
        self.domains: list[Rule] = []
        self.addresses: list[str] = []


def resolves(policy: Policy, name: str) -> bool:
    """Whether the container may ask for *name* outside."""
    if policy.mode == "none":
        return False
    if policy.mode == "dns" or policy.dns or is_open(policy):
        return True
    return any(covers(domain, name) for domain, _, _ in policy.domains)


def is_open(policy: Policy) -> bool:
    """Whether the policy only says what is denied."""
    return policy.mode == "list" and not (policy.allow or policy.domains or policy.dns)


def covers(domain: str, name: str) -> bool:
    """Whether *name* is the domain, or with *. before it, below it."""
    asked = name.lower().rstrip(".")
    if domain.startswith("*."):
        return asked.endswith(domain[1:]) and len(asked) > len(domain) - 1
    return asked == domain


def path(identifier: str) -> str:
    """The file of a container's policy."""
    return f"{paths.run()}/networks/policies/{identifier}"


def load(identifier: str) -> Policy | None:
    """The policy of a container, None if it has none. Raises ValueError for a file nobody here wrote."""
    try:
        text = paths.read(path(identifier)).decode("ascii")
    except FileNotFoundError:
        return None
    return parsed(text)


def save(identifier: str, policy: Policy) -> None:
    """Write the policy's file, in one step."""
    paths.make(f"{paths.run()}/networks/policies")
    paths.replace(path(identifier), text(policy).encode("ascii"))


def forget(identifier: str) -> None:
    """Remove the policy's file; fine if there is none."""
    try:
        posix.unlink(path(identifier))
    except FileNotFoundError:
        pass


def at(policy: Policy, addresses: list[str]) -> Policy:
    """The same policy, for these addresses alone."""
    one = Policy(policy.mode)
    one.allow, one.deny, one.domains, one.dns = policy.allow, policy.deny, policy.domains, policy.dns
    one.addresses = addresses
    return one


def all_policies() -> list[Policy]:
    """The policies of the containers there are."""
    directory = f"{paths.run()}/networks/policies"
    try:
        names = [name for name in posix.listdir(directory) if len(name) == 64]
    except FileNotFoundError:
        return []
    living = [name for name in sorted(names) if paths.exists(f"{paths.run()}/containers/{name}")]
    return [found for found in map(load, living) if found is not None]


def text(policy: Policy) -> str:
    """The content of the file."""
    lines = [f"mode {policy.mode}"]
    lines += ["dns"] if policy.dns else []
    lines += [f"deny {cidr}" for cidr in policy.deny]
    lines += [" ".join(["allow", *rule]) for rule in policy.allow]
    lines += [" ".join(["domain", *rule]) for rule in policy.domains]
    lines += [f"address {address}" for address in policy.addresses]
    return "\n".join(lines) + "\n"


def parsed(text: str) -> Policy:
    """A policy from the content of its file. Raises ValueError."""
    policy: Policy | None = None
    for line in text.splitlines():
        kind, *words = line.split(" ")
        if kind == "mode" and words[0:1] and words[0] in ("none", "dns", "list"):
            policy = Policy(words[0])
        elif policy is None or len(words) != {"dns": 0, "deny": 1, "allow": 3, "domain": 3, "address": 1}.get(
            kind
        ):
            raise ValueError(f"an egress policy has no line {line!r:.80}")
        elif kind == "dns":
            policy.dns = True
        elif kind in ("deny", "address"):
            (policy.deny if kind == "deny" else policy.addresses).append(words[0])
        else:
            (policy.allow if kind == "allow" else policy.domains).append((words[0], words[1], words[2]))
    if policy is None:
        raise ValueError("an egress policy begins with its mode")
    return policy
