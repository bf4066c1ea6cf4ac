"""`pyrun run`: what every option comes to inside the container.

Defaults are in test_run_defaults.py; output, input and exit statuses in test_run_streams.py. Where the expected value
is not obvious it was read off Docker 20.10 with the same option.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from command import Pyrun

NONE = "--network=none"


def inside(pyrun: Pyrun, script: str, *options: str) -> str:
    """What *script* prints in a busybox container with *options*, without a network unless they say otherwise."""
    network = [] if any(option.startswith(("--network", "--net")) for option in options) else [NONE]
    return pyrun.ok("run", "--rm", *network, *options, "busybox", "sh", "-c", script)


# ── environment, directory, user, names ────────────────────────────────────────────────────────────


def test_environment(pyrun: Pyrun, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("FROM_FILE=a b\n# a comment\nHERE\n\nTWICE=file\n")
    options = [
        "--env-file",
        str(tmp_path / "env"),
        "-e",
        "TWICE=given",
        "-e",
        "EMPTY=",
        "-eHERE2",
        "-e",
        "NOWHERE",
    ]
    command = ["run", "--rm", NONE, "-h", "box", *options, "busybox", "env"]
    seen = set(pyrun.ok(*command, env={"HERE": "1", "HERE2": "2"}).splitlines())
    assert seen == {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=box", "HOME=/root",
        "FROM_FILE=a b", "HERE=1", "TWICE=given", "EMPTY=", "HERE2=2",
    }  # fmt: skip


def test_working_directory_is_made(pyrun: Pyrun) -> None:
    assert inside(pyrun, "pwd; stat -c '%a %u' .", "-w", "/new/deep", "-u", "1000") == "/new/deep\n755 0"
    assert inside(pyrun, "pwd; touch /new/x 2>/dev/null || echo no", "-w", "/new/deep", "--read-only") == (
        "/new/deep\nno"
    )
    assert "not an absolute path" in pyrun.fails(125, "run", NONE, "-w", "new", "busybox", "true")


@pytest.mark.parametrize(
    ("user", "seen"),
    [
        ("1000", "1000 0 0 /"),
        (":5", "0 5 5 /root"),
        ("1000:50", "1000 50 50 /"),
        ("nobody", "65534 65534 65534 /nonexistent"),
        ("65534", "65534 65534 65534 /nonexistent"),
        ("root:daemon", "0 1 1 /root"),
        ("daemon:1000", "1 1000 1000 /usr/sbin"),
    ],
)
def test_user(pyrun: Pyrun, user: str, seen: str) -> None:
    assert inside(pyrun, "echo $(id -u) $(id -g) $(id -G) $HOME", "-u", user) == seen


def test_a_user_who_is_not_root_holds_no_capability(pyrun: Pyrun) -> None:
    sets = inside(pyrun, "grep -E 'Cap(Prm|Eff|Amb|Bnd)' /proc/self/status", "-u", "1000").split()[1::2]
    assert sets == ["0" * 16, "0" * 16, "00000000a80425fb", "0" * 16]


def test_unknown_user_and_group(pyrun: Pyrun) -> None:
    assert "no user 'who'" in pyrun.fails(125, "run", NONE, "-u", "who", "busybox", "true")
    assert "no group 'who'" in pyrun.fails(125, "run", NONE, "--group-add", "who", "busybox", "true")
    assert not list((pyrun.root / "names").glob("*"))


def test_further_groups(pyrun: Pyrun) -> None:
    script = "grep Groups /proc/self/status"
    assert inside(pyrun, script, "-u", "1000", "--group-add", "7", "--group-add", "daemon").split()[1:] == [
        "0", "1", "7",
    ]  # fmt: skip


def test_host_name(pyrun: Pyrun) -> None:
    assert inside(pyrun, "hostname; echo $HOSTNAME; cat /etc/hostname", "-h", "shop") == "shop\nshop\nshop"
    assert "invalid --hostname" in pyrun.fails(125, "run", NONE, "-h", "a b", "busybox", "true")


def test_entrypoint(pyrun: Pyrun) -> None:
    assert pyrun.ok("run", "--rm", NONE, "--entrypoint", "echo", "busybox", "a", "b") == "a b"
    assert pyrun.ok("run", "--rm", NONE, "--entrypoint", "", "busybox", "echo", "b") == "b"
    assert "no command given" in pyrun.fails(125, "run", NONE, "--entrypoint", "", "busybox")


def test_name_label_and_rm(pyrun: Pyrun) -> None:
    pyrun.ok("run", NONE, "--name", "kept", "--label", "a=1", "-l", "b", "busybox", "touch", "/written")
    pyrun.ok("run", "--rm", NONE, "--name", "gone", "busybox", "touch", "/written")
    (row,) = map(json.loads, pyrun.ok("ps", "-a", "--format", "json").splitlines())
    assert (row["Names"], set(row["Labels"].split(","))) == ("kept", {"a=1", "b="})
    (directory,) = (pyrun.root / "containers").iterdir()
    assert (directory / "upper" / "written").exists()
    assert "name kept" in pyrun.fails(125, "run", NONE, "--name", "kept", "busybox", "true").replace("'", "")
    assert "invalid --name" in pyrun.fails(125, "run", NONE, "--name", "a/b", "busybox", "true")


def test_pull_never(pyrun: Pyrun) -> None:
    assert "no local image" in pyrun.fails(125, "run", "--pull", "never", "nosuch:1", "true")
    assert inside(pyrun, "echo here", "--pull=never") == "here"


# ── mounts ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    directory = tmp_path / "shared"
    directory.mkdir()
    (directory / "file").write_text("from outside\n")
    return directory


def test_volume(pyrun: Pyrun, shared: Path) -> None:
    assert inside(pyrun, "cat /in/file; echo inside > /in/new", "-v", f"{shared}:/in") == "from outside"
    assert (shared / "new").read_text() == "inside\n"


def test_volume_read_only(pyrun: Pyrun, shared: Path) -> None:
    script = "cat /in/file; touch /in/x; grep -c ' /in ro,' /proc/self/mountinfo"
    done = pyrun("run", "--rm", NONE, "-v", f"{shared}:/in:ro", "busybox", "sh", "-c", script)
    assert (done.stdout, "Read-only file system" in done.stderr) == ("from outside\n1\n", True)
    assert not (shared / "x").exists()


def test_volume_of_a_file(pyrun: Pyrun, shared: Path) -> None:
    where = "/made/on/the/way"
    assert (
        inside(pyrun, f"cat {where}; echo more >> {where}", "-v", f"{shared}/file:{where}") == "from outside"
    )
    assert (shared / "file").read_text() == "from outside\nmore\n"


def test_volume_relative_to_the_caller(pyrun: Pyrun, shared: Path) -> None:
    done = pyrun("run", "--rm", NONE, "-v", "./shared:/in", "busybox", "ls", "/in", cwd=shared.parent)
    assert (done.returncode, done.stdout) == (0, "file\n")


def test_volume_over_etc_hosts_wins(pyrun: Pyrun, shared: Path) -> None:
    assert inside(pyrun, "cat /etc/hosts", "-v", f"{shared}/file:/etc/hosts") == "from outside"


def test_volumes_are_mounted_by_depth(pyrun: Pyrun, shared: Path, tmp_path: Path) -> None:
    """As Docker: in whatever order they are given, none hides another."""
    options = ["-v", f"{shared}:/m/sub", "--tmpfs", "/m/sub/t", "-v", f"{tmp_path}:/m"]
    assert inside(pyrun, "cat /m/sub/file; grep -c ' /m/sub/t ' /proc/self/mountinfo", *options).split("\n") == [
        "from outside", "1",
    ]  # fmt: skip


@pytest.mark.parametrize("target", ["/dev", "/dev/mqueue", "/dev/pts", "/sys/fs/cgroup"])
def test_a_volume_takes_the_place_of_a_default_mount(pyrun: Pyrun, shared: Path, target: str) -> None:
    assert inside(pyrun, f"cat {target}/file", "-v", f"{shared}:{target}:ro") == "from outside"
    pyrun.ok("run", "--rm", NONE, "-v", f"{shared}:{target}", "busybox", "true")
    assert [each.name for each in shared.iterdir()] == ["file"], "nothing is put into what is the host's"


def test_volumes_propagate_nothing_to_the_host(pyrun: Pyrun, shared: Path) -> None:
    (shared / "sub").mkdir()
    script = "mount -t tmpfs t /in/sub && touch /in/sub/x && ls /in/sub"
    options = ["-v", f"{shared}:/in", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"]
    assert inside(pyrun, script, *options) == "x"
    assert not list((shared / "sub").iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/nosuch/dir:/in", "No such file or directory"),
        ("/etc:in", "invalid destination 'in'"),
        ("/etc:/", "invalid destination '/'"),
        ("/etc:/in:rx", "unknown option 'rx'"),
        ("etc", "invalid --volume"),
    ],
)
def test_malformed_volume(pyrun: Pyrun, text: str, message: str) -> None:
    assert message in pyrun.fails(125, "run", NONE, "-v", text, "busybox", "true")


def test_tmpfs(pyrun: Pyrun) -> None:
    script = "grep ' /t ' /proc/self/mountinfo | cut -d' ' -f6,10; stat -c %a /t"
    assert inside(pyrun, script, "--tmpfs", "/t").split() == ["rw,nosuid,nodev,noexec,relatime", "rw", "1777"]
    assert inside(pyrun, script, "--tmpfs", "/t:size=1m,mode=700,exec").split() == [
        "rw,nosuid,nodev,relatime", "rw,size=1024k,mode=700", "700",
    ]  # fmt: skip
    full = inside(pyrun, "dd if=/dev/zero of=/t/x bs=1k count=2048 2>&1 | head -1", "--tmpfs", "/t:size=1m")
    assert "No space left on device" in full


def test_read_only_root(pyrun: Pyrun) -> None:
    script = (
        "for i in /x /tmp/x /etc/hosts /etc/resolv.conf /dev/x /dev/shm/x; do touch $i 2>&- && echo $i; done"
    )
    assert inside(pyrun, script, "--read-only") == "/dev/x\n/dev/shm/x"
    assert inside(pyrun, "touch /t/x && echo fine", "--read-only", "--tmpfs", "/t") == "fine"


def test_shm_size(pyrun: Pyrun) -> None:
    script = "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2"
    assert inside(pyrun, script) == "65536"
    assert inside(pyrun, script, "--shm-size", "1m") == "1024"


# ── init, sysctls, hosts, network ──────────────────────────────────────────────────────────────────


def test_init_reaps_orphans_and_hands_on_the_status(pyrun: Pyrun) -> None:
    # `(sleep &)`: its parent is gone at once; without a reaper it would be a zombie of pid 1
    script = "echo $$; (sleep 0.01 &); sleep 0.2; cat /proc/[0-9]*/stat | cut -d' ' -f3 | grep -c Z; exit 5"
    done = pyrun("run", "--rm", NONE, "--init", "busybox", "sh", "-c", script)
    assert (done.returncode, done.stdout.split()) == (5, ["2", "0"])
    without = pyrun("run", "--rm", NONE, "busybox", "sh", "-c", script.replace("exit 5", "true"))
    assert without.stdout.split()[0] == "1"
    assert "no such command" in pyrun.fails(127, "run", "--rm", NONE, "--init", "busybox", "nosuch")


@pytest.mark.parametrize("options", [(), ("-u", "1000"), ("--security-opt=no-new-privileges",)])
def test_init_is_to_the_others_what_the_command_would_be(pyrun: Pyrun, options: tuple[str, ...]) -> None:
    """Its streams can be opened by path, and it is bound by all that binds the command."""
    kept = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)'"
    script = f"echo there >/proc/1/fd/1; {kept} /proc/1/status; echo --; {kept} /proc/self/status"
    done = pyrun("run", "--rm", NONE, "--init", *options, "busybox", "sh", "-c", script)
    first, _, command = done.stdout.partition("--\n")
    assert (done.returncode, first) == (0, "there\n" + command), done
    assert "Seccomp:\t2\n" in first


def test_sysctl(pyrun: Pyrun) -> None:
    options = ["--sysctl", "net.core.somaxconn=77", "--sysctl", "kernel.msgmax=9000"]
    here = [Path("/proc/sys", name).read_text() for name in ("net/core/somaxconn", "kernel/msgmax")]
    assert inside(pyrun, "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax", *options) == "77\n9000"
    assert here == [Path("/proc/sys", name).read_text() for name in ("net/core/somaxconn", "kernel/msgmax")]
    for name in ("kernel.panic=1", "net.core.somaxconn", "vm.swappiness=1"):
        assert "sysctl" in pyrun.fails(125, "run", NONE, "--sysctl", name, "busybox", "true")
    assert "host" in pyrun.fails(
        125, "run", "--net=host", "--sysctl", "net.core.somaxconn=7", "busybox", "true"
    )


def test_the_callers_umask_is_not_the_containers(pyrun: Pyrun, tmp_path: Path) -> None:
    """What is made for mounts and the working directory can be used by whoever the container's user is."""
    (tmp_path / "given").mkdir()
    tmp_path.chmod(0o755)
    options = (
        "-v",
        f"{tmp_path}/given:/n1/n2",
        "-v",
        "/etc/hostname:/n3/file",
        "--tmpfs",
        "/n4/t",
        "-w",
        "/n5/here",
    )
    script = "umask; stat -c %a /n1 /n3 /n4 /n5 && ls /n1/n2 && pwd"
    words = ("run", "--rm", "--net=none", "-u", "1000", *options, "busybox", "sh", "-c", script)
    line = ["sh", "-c", 'umask 077; exec "$@"', "sh", str(pyrun.binary), *words]
    done = subprocess.run(line, env=pyrun.env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["0022", *["755"] * 4, "/n5/here"], "")


def test_add_host(pyrun: Pyrun) -> None:
    hosts = ["--add-host", "db:10.0.0.7", "--add-host", "six=fe80::1", "--add-host", "up:host-gateway"]
    script = "cat /etc/hosts; ip route | grep default"
    *lines, route = inside(pyrun, script, "--net=bridge", "-h", "box", *hosts).splitlines()
    gateway = route.split()[2]
    assert lines[-4:-1] == ["10.0.0.7\tdb", "fe80::1\tsix", f"{gateway}\tup"]
    assert lines[-1].endswith("\tbox")
    assert "invalid address" in pyrun.fails(125, "run", NONE, "--add-host", "db:1.2.3", "busybox", "true")


def test_network_none(pyrun: Pyrun) -> None:
    script = "ls /sys/class/net; ip -o -4 addr; ping -c1 -W1 127.0.0.1 >&2 && ip route | wc -l"
    lines = inside(pyrun, script).splitlines()
    assert lines[0] == "lo" and "127.0.0.1/8" in lines[1] and lines[2:] == ["0"]


def test_network_host(pyrun: Pyrun, lab: None) -> None:
    script = "readlink /proc/self/ns/net; hostname; cat /etc/hosts /etc/resolv.conf"
    expected = [
        str(Path("/proc/self/ns/net").readlink()),
        Path("/proc/sys/kernel/hostname").read_text().strip(),
    ]
    files = Path("/etc/hosts").read_text() + Path("/etc/resolv.conf").read_text()
    assert inside(pyrun, script, "--net=host").splitlines() == expected + files.splitlines()
    told = pyrun("run", "--rm", "--net=host", "-p", "80:80", "busybox", "true").stderr.splitlines()
    assert told[0] == "published ports are ignored with --network host", "as for a bundle"
    assert told[1:] == ["with --network host the container reaches what listens on this host's loopback, and its "
                        "abstract sockets"]  # fmt: skip
    assert pyrun("run", "--rm", "-q", "--net=host", "busybox", "true").stderr == ""


def test_network_bridge(pyrun: Pyrun) -> None:
    script = "ls /sys/class/net | tr '\\n' ' '; cat /sys/class/net/eth0/operstate /sys/class/net/eth0/mtu"
    assert inside(pyrun, script, "--net=bridge").split() == ["eth0", "lo", "up", "1500"]
