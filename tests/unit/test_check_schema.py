"""The check against the official schema: it knows every field, and of everything wrong it names exactly the place."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyrun.errors import UsageError
from pyrun.spec import check, check_rules, check_table, seccomp_check
from unit import config_mutations as mutations
from unit import oci_schema

# Left out on purpose: other systems, what is looked at elsewhere. A name covers everything below it.
IGNORED = {
    "solaris": "another system", "windows": "another system", "zos": "another system", "freebsd": "another system",
    "vm": "virtual machines", "process.commandLine": "Windows", "process.user.username": "Windows",
    "linux.seccomp": "seccomp_check.py, asked when a profile is compiled",
}  # fmt: skip
# In no table, since it is only looked at when there is a terminal.
ELSEWHERE = {"process.consoleSize": check_table.CONSOLE_SIZE}


def is_ignored(pattern: str) -> bool:
    return any(pattern == name or pattern.startswith((f"{name}.", f"{name}[")) for name in IGNORED)


def rules(rule: Any, pattern: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of the check's tables, as (pattern, rule)."""
    if isinstance(rule, check_rules.Rare):
        rule = rule.rule()
    if isinstance(rule, check_rules.Fields):
        for key, inner in rule.table.items():
            where = f"{pattern}.{key}" if pattern else key
            yield where, inner.rule() if isinstance(inner, check_rules.Rare) else inner
            yield from rules(inner, where)
    elif hasattr(rule, "rule"):
        where = pattern + ("{}" if isinstance(rule, check_rules.Map) else "[]")
        yield where, rule.rule
        yield from rules(rule.rule, where)


def all_rules() -> dict[str, Any]:
    known = dict(rules(check_table.CONFIG))
    for pattern, rule in ELSEWHERE.items():
        known |= {pattern: rule, **dict(rules(rule, pattern))}
    return known


# ── coverage ───────────────────────────────────────────────────────────────────────────────────────


def test_every_field_of_the_schema_has_a_rule() -> None:
    """Fails for a new version of the schema until each new field is known or ignored on purpose."""
    known = all_rules()
    # the keys of time offsets are a table in the schema and a map here
    known |= {
        f"linux.timeOffsets.{clock}{rest}": known[f"linux.timeOffsets{{}}{rest}"]
        for clock in ("monotonic", "boottime")
        for rest in ("", ".secs", ".nanosecs")
    }
    missing = [name for name, _ in oci_schema.fields() if name not in known and not is_ignored(name)]
    assert not missing, f"fields the check does not know: {missing}"


def test_the_check_has_no_field_the_schema_lacks() -> None:
    schema = {name for name, _ in oci_schema.fields()}
    unknown = [
        name for name in all_rules() if name not in schema and not name.startswith("linux.timeOffsets")
    ]
    assert not unknown, f"misspelt? {unknown}"


def test_the_coverage_test_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(check_table.LINUX.table, "mountLabel")
    with pytest.raises(AssertionError, match=r"linux\.mountLabel"):
        test_every_field_of_the_schema_has_a_rule()


def test_what_is_ignored_exists() -> None:
    names = {name for name, _ in oci_schema.fields()}
    assert not set(IGNORED) - names


@pytest.mark.parametrize("kind", ["enum", "type"])
def test_rules_are_of_the_schema_s_kind(kind: str) -> None:
    """A word list holds all of the schema's, a number is a number."""
    known = all_rules()
    for name, node in oci_schema.fields():
        rule = known.get(name)
        if rule is None:
            continue
        words = node.schema.get("enum")
        if kind == "enum" and words:
            assert isinstance(rule, check_rules.Word), name
            assert set(words) <= set(rule.words), name
        if kind == "type":
            assert (node.schema.get("type") == "integer") == isinstance(rule, check_rules.Whole), name
            assert (node.schema.get("type") == "boolean") == (rule is check_rules.flag), name
            assert (node.schema.get("type") == "array") == (
                isinstance(rule, check_rules.Each) or "Mappings" in type(rule).__name__
            ), name


# ── valid ones ─────────────────────────────────────────────────────────────────────────────────────

SEEDS, SAMPLE = range(60), 1500


@pytest.mark.parametrize("seed", SEEDS)
def test_valid_configs_are_accepted(seed: int) -> None:
    config = mutations.valid(seed)
    assert not list(oci_schema.errors(config, oci_schema.whole()))
    assert check.config(config) is config


def pattern_of(path: mutations.Path) -> str:
    """The field a path leads to, as oci_schema.fields names it."""
    node, pattern = oci_schema.whole(), ""
    for key in path:
        members, inner = node.members(), node.others()
        if key in members:
            node, pattern = members[key], f"{pattern}.{key}".removeprefix(".")
        elif inner:
            node, pattern = inner, pattern + ("[]" if isinstance(key, int) else "{}")
        else:
            return ""
    return pattern


def places_of_fields() -> dict[str, tuple[int, mutations.Path]]:
    """For each field one place where it occurs: the seed of a valid config, and the path."""
    found: dict[str, tuple[int, mutations.Path]] = {}
    for seed in SEEDS:
        for path in mutations.places(mutations.valid(seed)):
            found.setdefault(pattern_of(path), (seed, path))
    del found[""]
    return found


PLACES = places_of_fields()


def test_every_field_occurs_in_a_valid_config() -> None:
    """So that each is changed below."""
    fields = [name for name, _ in oci_schema.fields() if not is_ignored(name)]
    absent = [name for name in fields if name not in PLACES]
    assert absent == ["linux.personality.flags[]"]  # there are none yet


# ── one thing changed ──────────────────────────────────────────────────────────────────────────────


def verdict(judge: Callable[[Any], object], value: Any) -> str:
    """The error's message; empty if accepted. Nothing but a UsageError may come, in one short line."""
    try:
        judge(value)
    except UsageError as error:
        assert error.message.startswith("config.json: ") and len(error.message) < 300, error.message
        assert error.message.isprintable(), error.message
        return error.message
    return ""


def is_lenient(path: mutations.Path, new: Any) -> bool:
    """What the schema refuses and runc takes: the check's docstrings say so."""
    last = path[-1]
    if new is None:
        return isinstance(last, str)  # null is absent; in a list it has no meaning
    if last == "fileMode":
        return isinstance(new, int) and 0 <= new < 1 << 16  # with the file's type, as Go's os.FileMode
    if path == ("linux", "rootfsPropagation") or last == "memBwSchema":
        return new == ""
    if "pids" in path[-2:] and "limit" not in (new if isinstance(new, dict) else ()):
        return isinstance(new, dict) or new is mutations.Gone  # limit is OPTIONAL in the text of 1.3
    return path[:2] == ("process", "consoleSize") or path[:2] == ("linux", "seccomp")


def is_near(named: str, path: mutations.Path) -> bool:
    """Whether an error for something the schema allows is at the changed value, beside it, around it or in it."""
    own, around = mutations.shown(path), mutations.shown(path[:-1])
    if path == ("linux",) or path[:2] == ("linux", "namespaces"):
        return True  # half of the config needs some namespace
    if "Mappings" in own:
        around = mutations.shown(path[:-2])  # no two of a list may overlap
    return named.startswith(own) or own.startswith(named) or (bool(around) and named.startswith(around))


def expected(config: Any, path: mutations.Path, new: Any) -> str:
    """Where the schema finds fault with *config*, in which *new* is at *path*; empty if it does not."""
    around = oci_schema.at(path[:-1])
    if new is mutations.Gone:
        required = around.schema.get("required", ()) if around else ()
        return mutations.shown(path) if path[-1] in required else ""
    node = oci_schema.at(path)
    found = list(oci_schema.errors(new, node, mutations.shown(path))) if node else []
    return found[0][0] if found else ""


def look_at(config: Any, path: mutations.Path, changed: Any) -> str:
    """The verdict on *changed*, compared with the schema's."""
    new = mutations.got_or(changed, path)
    if isinstance(path[-1], int) and new is mutations.Gone:
        new = mutations.got(config, path)  # the list is shorter: nothing is wrong by itself
    place = expected(changed, path, new)
    message = verdict(check.config, changed)
    if place and is_lenient(path, new):
        return message
    if place:
        assert message, f"{place} = {new!r:.80} is accepted"
        assert message.startswith(f"config.json: {place}: ") or len(place) > 100, (
            f"{place} = {new!r:.80}: {message}"
        )
    elif message:
        named = message.removeprefix("config.json: ").split(": ")[0]
        assert is_near(named, path), f"{mutations.shown(path)} = {new!r:.80}: {message}"
    return message


@pytest.mark.parametrize("field", [name for name in PLACES if not is_ignored(name)])
def test_every_wrong_value_of_a_field_is_named(field: str) -> None:
    """Accepted by schema and check, or refused with exactly the path."""
    seed, path = PLACES[field]
    config = mutations.valid(seed)
    verdicts = [
        look_at(
            config,
            path,
            mutations.changed(config, path, wrong(mutations.copied(mutations.got(config, path)))),
        )
        for wrong in mutations.WRONG
    ]
    assert sum(map(bool, verdicts)) >= 15


@pytest.mark.parametrize("seed", range(100, 104))
def test_other_configs_changed_anywhere(seed: int) -> None:
    """A sample of all changes to configs that are bigger than what the test above looks at."""
    config = mutations.valid(seed)
    sample = itertools.islice(mutations.mutations(config, seed), SAMPLE)
    assert sum(bool(look_at(config, path, changed)) for path, changed in sample) > 200


def test_seccomp_is_refused_as_the_schema_does() -> None:
    """The same for the profile, which is checked when it is compiled."""
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW",
                      "args": [{"index": 5, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]}],
    }  # fmt: skip
    seccomp_check.check(mutations.copied(profile))
    for path, changed in mutations.mutations(profile, 1):
        found = list(oci_schema.errors(changed, oci_schema.at(("linux", "seccomp"))))
        try:
            seccomp_check.check(changed)
        except UsageError as error:
            assert error.message.isprintable()
            continue
        # what is empty counts as absent there
        assert not found or not mutations.got_or(changed, path), f"{found[:2]} is accepted"


def test_nothing_but_a_usage_error() -> None:
    """Whatever stands where the config should be."""
    for value in (None, 1, 1.5, "x", [], {}, [[]], {"linux": []}, {"ociVersion": {}}, float("nan"), 10**5000):
        assert verdict(check.config, value)
