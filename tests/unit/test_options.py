"""cli/options.py: what Docker's command line means, word by word."""

from __future__ import annotations

import pytest

from pyrun.cli import options
from pyrun.cli.tables import ALIASES, GROUPS, TOP, VERBS
from pyrun.errors import UsageError


@pytest.mark.parametrize(
    ("words", "expected", "arguments"),
    [
        (["ubuntu"], {"tty": False, "env": [], "memory": "", "rm": False, "network": []}, ["ubuntu"]),
        (["-it", "ubuntu", "bash"], {"interactive": True, "tty": True}, ["ubuntu", "bash"]),
        (["-itd", "ubuntu"], {"interactive": True, "tty": True, "detach": True}, ["ubuntu"]),
        (["-e", "A=B", "u"], {"env": ["A=B"]}, ["u"]),
        (["-eA=B", "u"], {"env": ["A=B"]}, ["u"]),
        (["-e=A=B", "u"], {"env": ["A=B"]}, ["u"]),
        (["-ite", "A=B", "u"], {"env": ["A=B"], "tty": True}, ["u"]),
        (["-iteA=B", "u"], {"env": ["A=B"], "tty": True}, ["u"]),
        (["--env=A=B", "--env", "C", "u"], {"env": ["A=B", "C"]}, ["u"]),
        (["-e", "-x", "u"], {"env": ["-x"]}, ["u"]),
        (["--name", "--rm", "u"], {"name": "--rm", "rm": False}, ["u"]),
        (["--name=", "u"], {"name": ""}, ["u"]),
        (["--name=web", "u"], {"name": "web"}, ["u"]),
        (["--name", "a", "--name", "b", "u"], {"name": "b"}, ["u"]),
        (["--net=host", "u"], {"network": ["host"]}, ["u"]),
        (
            ["--network", "front:ip=10.1.0.9", "--net=back", "u"],
            {"network": ["front:ip=10.1.0.9", "back"]},
            ["u"],
        ),
        (
            ["--ip", "10.1.0.9", "--network-alias=a", "--net-alias", "b", "u"],
            {"network_alias": ["a", "b"]},
            ["u"],
        ),
        (["--rm=false", "u"], {"rm": False}, ["u"]),
        (["--rm=1", "u"], {"rm": True}, ["u"]),
        (["-i=false", "u"], {"interactive": False}, ["u"]),
        (["--sig-proxy=false", "u"], {"sig_proxy": False}, ["u"]),
        (["--pids-limit", "-1", "u"], {"pids_limit": -1}, ["u"]),
        (["--explain", "u"], {"explain": "text"}, ["u"]),
        (["--explain=json", "u"], {"explain": "json"}, ["u"]),
        (["u", "--rm", "-x", "--"], {"rm": False}, ["u", "--rm", "-x", "--"]),
        (["--", "-u", "--rm"], {"user": "", "rm": False}, ["-u", "--rm"]),
        (["--rm", "--", "u", "ls"], {"rm": True}, ["u", "ls"]),
        (["-", "x"], {}, ["-", "x"]),
        (["-h", "box", "u"], {"hostname": "box", "help": False}, ["u"]),
        (["--entrypoint", "", "u"], {"entrypoint": ""}, ["u"]),
        (["--bundle", "dir"], {"bundle": "dir"}, []),
    ],
)
def test_run_options(words: list[str], expected: dict[str, object], arguments: list[str]) -> None:
    found, rest = options.parse(VERBS["run"], words)
    assert rest == arguments
    assert {key: found[key] for key in expected} == expected


def test_options_of_other_verbs_may_follow_arguments() -> None:
    found, rest = options.parse(VERBS["logs"], ["web", "-f", "--tail", "3"])
    assert (rest, found["follow"], found["tail"]) == (["web"], True, "3")
    found, rest = options.parse(VERBS["stop"], ["a", "-t", "0", "b"])
    assert (rest, found["timeout"]) == (["a", "b"], 0)
    found, rest = options.parse(VERBS["stop"], ["--time=-1", "a"])
    assert found["timeout"] == -1


@pytest.mark.parametrize(
    ("verb", "words", "message"),
    [
        ("run", ["--frobnicate", "u"], "unknown option --frobnicate"),
        ("run", ["-itx", "u"], "unknown option -x in -itx"),
        ("run", ["-x", "u"], "unknown option -x"),
        ("run", ["--name"], "option --name needs a value"),
        ("run", ["-it", "-e"], "option -e needs a value"),
        ("run", ["--rm=perhaps", "u"], "option --rm is true or false, not 'perhaps'"),
        ("run", ["--pids-limit=many", "u"], "option --pids-limit needs a whole number, not 'many'"),
        ("run", ["--pids-limit=1_0", "u"], "option --pids-limit needs a whole number, not '1_0'"),
        ("run", ["--explain=yaml", "u"], "option --explain is text or json, not 'yaml'"),
        ("stop", ["-t", "٣", "web"], "option -t needs a whole number, not '٣'"),
    ],
)
def test_mistakes_are_named(verb: str, words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        options.parse(VERBS[verb], words)
    assert caught.value.message == message
    assert caught.value.hint == f"see `pyrun {verb} --help`"
    assert caught.value.status == 125


@pytest.mark.parametrize(
    ("verb", "words", "message"),
    [
        ("run", ["--rm"], "pyrun run needs at least 1 argument"),
        ("exec", ["web"], "pyrun exec needs at least 2 arguments"),
        ("ps", ["web"], "pyrun ps takes no arguments, not 1"),
        ("logs", ["a", "b"], "pyrun logs takes at most 1 argument, not 2"),
        ("network rm", [], "pyrun network rm needs at least 1 argument"),
    ],
)
def test_arguments_are_counted(verb: str, words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        options.parse(VERBS[verb], words)
    assert (caught.value.message, caught.value.status) == (message, 1)
    assert caught.value.hint == f"usage: {VERBS[verb][1]}"


def test_help_ends_parsing() -> None:
    for words in (["--help"], ["-a", "--help", "--nonsense"], ["-h"]):
        assert options.parse(VERBS["ps"], words)[0]["help"] is True
    found, rest = options.parse(VERBS["run"], ["ubuntu", "ls", "--help"])
    assert (found["help"], rest) == (False, ["ubuntu", "ls", "--help"])


@pytest.mark.parametrize(
    ("words", "verb", "rest"),
    [
        (["run", "--rm", "u"], "run", ["--rm", "u"]),
        (["container", "ls", "-a"], "ps", ["-a"]),
        (["image", "rm", "u"], "rmi", ["u"]),
        (["network", "ls"], "network ls", []),
        (["network", "remove", "n"], "network rm", ["n"]),
        (["system", "reconcile"], "system reconcile", []),
        (["network"], "network", ["--help"]),
        (["image", "--help"], "image", ["--help"]),
        (["help", "run"], "run", ["--help"]),
        ([], "", []),
        (["--help"], "", ["--help"]),
    ],
)
def test_find_verb(words: list[str], verb: str, rest: list[str]) -> None:
    assert options.find_verb(words) == (verb, rest)


@pytest.mark.parametrize(
    "words", [["rum"], ["network", "make"], ["ls"], ["container", "reconcile"], ["help", "x"]]
)
def test_unknown_verbs(words: list[str]) -> None:
    with pytest.raises(UsageError, match="unknown command"):
        options.find_verb(words)


def test_the_tables_are_sound() -> None:
    for verb, (rows, usage, summary, least, most) in [*VERBS.items(), ("", TOP)]:
        names = [name for row in rows for name in row[0]]
        assert len(names) == len(set(names)), verb
        assert len({row[2] for row in rows}) == len(rows), verb
        assert options.name_of(usage) == f"pyrun {verb}".strip()
        assert summary and summary[0].isupper() and not summary.endswith("."), verb
        assert most == -1 or most >= least, verb
        for row_names, kind, destination, default, metavar, meaning in rows:
            where = f"{verb} {destination}"
            assert kind in ("flag", "optional", "value", "int", "list"), where
            assert bool(metavar) == (kind != "flag"), where
            assert isinstance(default, bool) == (kind == "flag"), where
            assert meaning[0].isupper(), where
            assert all(len(name) == 2 or name.startswith("--") for name in row_names), where
    assert all(verb in VERBS and alias.split()[0] in GROUPS for alias, verb in ALIASES.items())
