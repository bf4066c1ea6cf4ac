"""cli/oci*.py: runc's command line word by word, its log lines, its words; features and spec as values."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyrun import jsonlite
from pyrun.cli import oci, oci_help, oci_log, oci_options, oci_tables, oci_verbs, oci_words
from pyrun.cli.oci_options import Misused, parse
from pyrun.engine.oci import features, notify_socket, spec
from pyrun.errors import CommandError, PyrunError, StageFailed
from pyrun.plan import operations  # noqa: F401  (the stages below need it first)
from pyrun.spec.config import OCI_VERSION
from unit import oci_schema

# What runc 1.5 has and Debian's runc 1.1.5 has not, hidden ones and crun's included.
SINCE = {
    "checkpoint": {"tcp-skip-in-flight", "link-remap"},
    "create": {"config", "pidfd-socket"},
    "delete": {"regex"},
    "exec": {"pidfd-socket"},
    "run": {"config", "pidfd-socket"},
    "update": {"cpu-burst", "cpu-idle", "kernel-memory", "kernel-memory-tcp"},
    "": {"cgroup-manager"},
}
COMMANDS = sorted(oci_tables.COMMANDS)


def own_flags(command: str) -> dict[str, tuple[str, bool]]:
    """Ours: name -> (letter, does it take a value?)."""
    table = oci_tables.COMMANDS[command][0] if command else oci_tables.GLOBAL
    found = {}
    for entry in table.split():
        spellings, _, kind = entry.partition(":")
        name, _, letter = spellings.partition(",")
        found[name] = (letter, kind[0] != "b")
    return found


def their_flags(program: str, *words: str) -> dict[str, tuple[str, bool]]:
    """Those in the help of the real runc."""
    page = subprocess.run([program, *words, "--help"], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in page.splitlines():
        match = re.match(r"   --([\w-]+)( value)?(?:, -(\w))?", line)
        if match and match[1] != "help":
            found[match[1]] = (match[3] or "", bool(match[2]))
    return found


@pytest.mark.needs("runc")
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_flag_of_the_real_runc_is_understood(command: str) -> None:
    theirs = their_flags("runc", *([command] if command else []))
    ours = own_flags(command)
    assert {name: ours.get(name) for name in theirs} == theirs
    assert set(ours) - set(theirs) == SINCE.get(command, set())


@pytest.mark.needs("runc")
def test_every_command_of_the_real_runc_is_there() -> None:
    page = subprocess.run(["runc", "--help"], capture_output=True, text=True, check=True).stdout
    section = page.partition("COMMANDS:\n")[2].partition("\n\n")[0]
    assert {line.split()[0] for line in section.splitlines()} - {"help,"} == set(COMMANDS)


def test_every_option_can_be_given_and_has_a_word_in_the_help() -> None:
    for command in ["", *COMMANDS]:
        table, stops = (
            (oci_tables.COMMANDS[command][0], oci_tables.COMMANDS[command][3])
            if command
            else (oci_tables.GLOBAL, True)
        )
        page = oci_help.page(command)
        for name, (letter, takes) in own_flags(command).items():
            kind = re.search(rf"(?:^| ){name}(?:,\w)?:(\w)", table)
            assert kind
            value = {"i": "7", "n": "7", "d": "7s"}.get(kind[1], "x")
            wanted: Any = {"i": 7, "n": [7], "d": 7.0, "l": ["x"], "s": "x", "b": True}[kind[1]]
            for spelled in [f"--{name}", f"-{name}", *([f"-{letter}", f"--{letter}"] if letter else [])]:
                forms = [[spelled, value], [f"{spelled}={value}"]] if takes else [[spelled], [f"{spelled}=1"]]
                for form in forms:
                    options, arguments = parse(table, [*form, "id"], stops=stops)
                    assert (options[name.replace("-", "_")], arguments) == (wanted, ["id"]), form
            shown = f"--{name} value" if takes else f"--{name}"
            assert (shown in page) == (name not in oci_tables.HIDDEN), name


def test_an_option_that_means_something_else_to_the_program_has_words_of_its_own() -> None:
    """spec --rootless writes another config.json; the global option of this name has no effect."""
    words = re.compile(r"^ +--(\S+?)(?:,.*?)?(?: value.*?)?  +(.*)$", re.MULTILINE)
    of_the_program = dict(words.findall(oci_help.page("")))
    assert "without effect" in of_the_program["rootless"] and "help" in of_the_program
    for command in COMMANDS:
        shown = dict(words.findall(oci_help.page(command)))
        same = {name for name in shown if shown[name] == of_the_program.get(name)}
        assert same == {"help"}, command
    assert "user namespace" in dict(words.findall(oci_help.page("spec")))["rootless"]


@pytest.mark.parametrize(
    ("command", "words", "expected", "arguments"),
    [
        ("create", ["a"], {"bundle": "", "no_pivot": False, "preserve_fds": 0, "help": False}, ["a"]),
        ("create", ["a", "--bundle", "b"], {"bundle": "b"}, ["a"]),
        ("create", ["--bundle", "--no-pivot", "a"], {"bundle": "--no-pivot", "no_pivot": False}, ["a"]),
        ("create", ["-b=", "a"], {"bundle": ""}, ["a"]),
        ("create", ["a", "--", "--bundle"], {"bundle": ""}, ["a", "--bundle"]),
        ("create", ["--no-pivot=false", "a"], {"no_pivot": False}, ["a"]),
        ("create", ["--preserve-fds", "-1", "a"], {"preserve_fds": -1}, ["a"]),
        ("create", ["a", "-bogus"], {}, ["a", "-bogus"]),
        ("create", ["-h"], {"help": True}, []),
        ("kill", ["a", "-9"], {"all": False}, ["a", "-9"]),
        ("kill", ["a", "9", "--all"], {"all": True}, ["a", "9"]),
        ("delete", ["a", "-f"], {"force": True}, ["a"]),
        ("exec", ["-e", "A=1,2", "--env=B", "-t", "a", "sh", "-e", "-t"], {"env": ["A=1,2", "B"], "tty": True},
         ["a", "sh", "-e", "-t"]),
        ("exec", ["a", "--", "sh"], {}, ["a", "--", "sh"]),
        ("exec", ["--", "a", "-x"], {}, ["a", "-x"]),
        ("exec", ["-g", "1", "-g=2", "a"], {"additional_gids": [1, 2], "no_new_privs": None}, ["a"]),
        ("exec", ["--no-new-privs=false", "a"], {"no_new_privs": False}, ["a"]),
        ("ps", ["-f", "json", "a", "-f", "-o", "pid"], {"format": "json"}, ["a", "-f", "-o", "pid"]),
        ("ps", ["a"], {"format": "table"}, ["a"]),
        ("update", ["a"], {"pids_limit": None, "blkio_weight": 0, "memory": ""}, ["a"]),
        ("update", ["-r", "-", "a", "--pids-limit", "-1"], {"resources": "-", "pids_limit": -1}, ["a"]),
        ("events", ["a"], {"interval": 5.0, "stats": False}, ["a"]),
        ("events", ["--interval", "1m1.5s", "a"], {"interval": 61.5}, ["a"]),
        ("checkpoint", ["a"], {"status_fd": -1}, ["a"]),
    ],
)  # fmt: skip
def test_words(command: str, words: list[str], expected: dict[str, object], arguments: list[str]) -> None:
    table, _, _, stops = oci_tables.COMMANDS[command]
    options, rest = parse(table, words, stops=stops)
    assert {key: options[key] for key in expected} == expected
    assert rest == arguments


@pytest.mark.parametrize(
    ("command", "words", "complaint"),
    [
        ("create", ["--bogus"], "flag provided but not defined: -bogus"),
        ("create", ["-it", "a"], "flag provided but not defined: -it"),
        ("create", ["---bundle", "a"], "bad flag syntax: ---bundle"),
        ("create", ["-=a"], "bad flag syntax: -=a"),
        ("create", ["a", "--bundle"], "flag needs an argument: -bundle"),
        ("create", ["-b"], "flag needs an argument: -b"),
        ("create", ["--preserve-fds=x"], 'invalid value "x" for flag -preserve-fds: parse error'),
        ("create", ["--preserve-fds=1_0"], 'invalid value "1_0" for flag -preserve-fds: parse error'),
        ("create", ["--preserve-fds=99999999999999999999"],
         'invalid value "99999999999999999999" for flag -preserve-fds: value out of range'),
        ("create", ["--no-pivot=maybe"], 'invalid boolean value "maybe" for -no-pivot: parse error'),
        ("exec", ["-g", "x"], 'invalid value "x" for flag -g: strconv.ParseInt: parsing "x": invalid syntax'),
        ("events", ["--interval", "5"], 'invalid value "5" for flag -interval: parse error'),
    ],
)  # fmt: skip
def test_wrong_words(command: str, words: list[str], complaint: str) -> None:
    table, _, _, stops = oci_tables.COMMANDS[command]
    with pytest.raises(Misused) as caught:
        parse(table, words, stops=stops)
    assert caught.value.message == complaint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5.0),
        ("300ms", 0.3),
        ("1h2m3s", 3723.0),
        ("1.5h", 5400.0),
        ("0", 0.0),
        ("-1s", -1.0),
        ("7us", 7e-6),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert oci_verbs.duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "-", "5 s", "1..2s", "5sm", "5d", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        oci_verbs.duration_s(text)


@pytest.mark.parametrize(
    ("given", "root"), [("/run/x/", "/run/x"), ("/a/../b//./c", "/b/c"), ("/a/b/..", "/a")],
)  # fmt: skip
def test_the_root_is_made_tidy(given: str, root: str) -> None:
    assert oci._root(given) == root


@pytest.mark.parametrize("given", ["/", "//", "/a/..", "/../.."])
def test_the_root_is_not_the_root(given: str) -> None:
    with pytest.raises(PyrunError, match="Option --root argument should not be set to /"):
        oci._root(given)


# ── log lines and words ────────────────────────────────────────────────────────────────────────────


def test_json_lines_survive_any_text() -> None:
    for message in ("plain", 'quoted "words"', "two\nlines", "\x1b[31m", "ünïcode", "raw \udcff byte"):
        line = oci_log.json_line("error", message)
        assert "\n" not in line
        found = json.loads(line)
        assert list(found) == ["level", "msg", "time"]
        assert found["msg"] == message.replace("\udcff", "\ufffd")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", found["time"])


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("short", "short"),
        ("a/b-c.d", "a/b-c.d"),
        ("two words", '"two words"'),
        ('say "x"', r'"say \"x\""'),
        ("a\nb\x1b\u200b", r'"a\nb\x1b\u200b"'),
        ("raw \udcff", r'"raw \xff"'),
        ("", '""'),
    ],
)
def test_text_lines_are_quoted_as_gos(message: str, shown: str) -> None:
    assert oci_log.text_line("error", message).partition("level=")[2] == f"error msg={shown}"


def test_what_a_container_named_does_not_drive_the_terminal() -> None:
    line = oci_log.terminal_line("error", "bad \x1b]0;x\x07 name")
    assert re.match(r"\x1b\[31mERRO\x1b\[0m\[\d{4}] bad \\x1b]0;x\\a name", line)


@pytest.mark.parametrize(
    ("command", "error", "words"),
    [
        ("state", PyrunError("container does not exist"), "container does not exist"),
        ("exec", PyrunError("container does not exist"), "exec failed: container does not exist"),
        ("create", CommandError('exec: "x": executable file not found in $PATH'),
         'pyrun-oci create failed: unable to start container process: exec: "x": executable file not found in $PATH'),
        ("run", PyrunError("config.json: root.path: /x: No such file or directory", "is it there?"),
         "pyrun-oci run failed: config.json: root.path: /x: no such file or directory (is it there?)"),
        ("run", StageFailed("rootfs", "mount /x", 13),
         "pyrun-oci run failed: rootfs: cannot mount /x: permission denied"),
        ("start", FileNotFoundError(2, "No such file or directory", "/x"), "/x: no such file or directory"),
        ("start", ValueError("one\ntwo"), "unexpected ValueError: one"),
    ],
)  # fmt: skip
def test_words_of_errors(command: str, error: Exception, words: str) -> None:
    assert oci_words.of(command, error) == words


def test_hints_do_not_contain_what_callers_look_for() -> None:
    """A hint stands in the same line: with such a word in it podman would take one failure for another."""
    from pyrun import errors

    for hint in errors._HINTS.values():
        assert not re.search(
            "permission denied|not permitted|not found in|no such|does not exist|not running", hint, re.I
        )


def test_a_failure_nobody_foresaw_is_one_line(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    class Left(Exception):
        pass

    def leave(status: int) -> None:
        raise Left(status)

    def fail(*args: object) -> int:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("pyrun.cli.main.leave", leave)
    monkeypatch.setattr(oci, "_call", fail)
    for words, status in ((["state", "x"], 1), (["exec", "x", "true"], 255)):
        with pytest.raises(Left) as caught:
            oci.main(["--root", "/nosuch", *words])
        assert caught.value.args == (status,)
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1
        assert "unexpected RuntimeError: first" in lines[0]


# ── features, spec ─────────────────────────────────────────────────────────────────────────────────


def test_features_follow_the_official_schema_and_name_everything_in_it() -> None:
    found = features.features()
    schema = oci_schema.whole("features-schema.json")
    assert list(oci_schema.errors(found, schema)) == []
    linux = schema.members()["linux"].members()
    assert set(schema.members()) == set(found)
    assert set(linux) <= set(found["linux"])
    for name, node in linux.items():
        if node.members():
            assert set(node.members()) <= set(found["linux"][name]), name


def test_one_constant_says_which_version_of_the_specification() -> None:
    sources = Path(features.__file__).parents[2].rglob("*.py")
    constants = [node for path in sources for node in ast.walk(ast.parse(path.read_bytes()))
                 if isinstance(node, ast.Constant) and node.value == OCI_VERSION]  # fmt: skip
    assert len(constants) == 1
    assert features.features()["ociVersionMax"] == spec.example(rootless=False)["ociVersion"] == OCI_VERSION


def test_the_schema_test_can_fail() -> None:
    found = features.features() | {"hooks": ["prestart", 7]}
    assert list(oci_schema.errors(found, oci_schema.whole("features-schema.json")))


def test_the_mount_options_are_those_of_the_specification() -> None:
    """features.md lists what a runtime should know; acl and iversion are the file system's or the kernel's alone."""
    listed = """async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev
        nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind
        rdev rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid
        rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared
        silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap ridmap""".split()
    assert set(listed) <= set(features.features()["mountOptions"])


@pytest.mark.parametrize("rootless", [False, True])
def test_spec_follows_the_official_schema(rootless: bool) -> None:
    assert (
        list(oci_schema.errors(spec.example(rootless=rootless), oci_schema.whole("config-schema.json"))) == []
    )


@pytest.mark.parametrize("rootless", [False, True])
def test_spec_passes_the_check(rootless: bool) -> None:
    from pyrun.spec import check

    check.config(json.loads(json.dumps(spec.example(rootless=rootless))), rootless=rootless)


def test_spec_does_not_overwrite(tmp_path: Any) -> None:
    spec.write(str(tmp_path), rootless=False)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(PyrunError, match=r"File config\.json exists\. Remove it first"):
        spec.write(str(tmp_path), rootless=True)
    assert (tmp_path / "config.json").read_bytes() == before


# ── LISTEN_FDS ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (0, [])),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "7"}, (2, ["LISTEN_FDS=2", "LISTEN_PID=1"])),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "8"}, (0, [])),
        ({"LISTEN_FDS": "2"}, (0, [])),
        ({"LISTEN_FDS": "0", "LISTEN_PID": "7"}, (0, [])),
        ({"LISTEN_FDS": "-1", "LISTEN_PID": "7"}, (0, [])),
        ({"LISTEN_FDS": "two", "LISTEN_PID": "7"}, (0, [])),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "7", "LISTEN_FDNAMES": "web"},
         (1, ["LISTEN_FDS=1", "LISTEN_PID=1", "LISTEN_FDNAMES=web"])),
    ],
)  # fmt: skip
def test_listen_fds(environ: dict[str, str], expected: tuple[int, list[str]]) -> None:
    given = {key.encode(): value.encode() for key, value in environ.items()}
    assert notify_socket.listen_fds(given, 7) == expected


@pytest.mark.parametrize(
    ("given", "path"), [("", ""), ("/run/n", "/run/n"), ("@n", "@n"), ("n", ""), ("vsock:2:1", "")]
)
def test_the_host_s_notify_socket(given: str, path: str) -> None:
    assert notify_socket.host_socket({b"NOTIFY_SOCKET": given.encode()} if given else {}) == path


def test_state_is_printed_as_go_indents_it() -> None:
    found = {"id": "a", "pid": 1, "annotations": {"k": "v", "l": 'w"'}, "owner": ""}
    assert jsonlite.indented(found) == json.dumps(found, indent=2)


def test_hidden_options_are_options() -> None:
    everything = {name for command in ["", *COMMANDS] for name in own_flags(command)}
    assert set(oci_tables.HIDDEN) <= everything
    assert oci_options.parse("", [], stops=True) == ({"help": False}, [])
