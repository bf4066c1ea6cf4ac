"""`pyrun run` without options: namespaces, /dev, mounts, what is hidden, and the three files in /etc, as in Docker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from command import Pyrun

NONE = "--network=none"
KINDS = ("mnt", "pid", "uts", "ipc", "net", "cgroup")


def inside(pyrun: Pyrun, script: str, *options: str) -> str:
    return pyrun.ok("run", "--rm", NONE, *options, "busybox", "sh", "-c", script)


def test_every_namespace_is_new(pyrun: Pyrun) -> None:
    seen = inside(pyrun, "cd /proc/self/ns; for i in mnt pid uts ipc net cgroup user; do readlink $i; done")
    here = [str(Path("/proc/self/ns", kind).readlink()) for kind in (*KINDS, "user")]
    assert [kind for kind, a, b in zip((*KINDS, "user"), seen.split(), here, strict=True) if a == b] == [
        "user"
    ]


def test_nothing_of_the_host_is_seen(pyrun: Pyrun) -> None:
    assert inside(pyrun, "ls -d /proc/[0-9]*; cut -d: -f3 /proc/self/cgroup | sort -u").split() == [
        "/proc/1",
        "/",
    ]
    assert inside(pyrun, "readlink /proc/1/cwd; readlink /proc/1/root").split() == ["/", "/"]
    mounts = inside(pyrun, "cat /proc/self/mountinfo")
    assert " shared:" not in mounts, "what is mounted inside would appear outside"


def test_only_three_descriptors_arrive(pyrun: Pyrun) -> None:
    """However many the caller has open (CVE-2024-21626)."""
    with open("/etc/passwd") as one, open("/etc/group") as two:
        process = pyrun.start(
            "run",
            "--rm",
            NONE,
            "busybox",
            "sh",
            "-c",
            "echo /proc/self/fd/*",
            pass_fds=(one.fileno(), two.fileno()),
        )
        output = process.communicate(timeout=20)[0]
    # the shell itself may read its directory by one more
    assert {path.rpartition("/")[2] for path in output.split()} <= {"0", "1", "2", "3"}
    assert "passwd" not in inside(pyrun, "ls -l /proc/1/fd")


def test_dev_is_dockers(pyrun: Pyrun) -> None:
    script = "cd /dev; for i in $(ls); do stat -c '%n %F %a %t:%T' $i; done; for i in fd std*; do readlink $i; done"
    expected = """\
fd symbolic link 777 0:0
full character special file 666 1:7
mqueue directory 1777 0:0
null character special file 666 1:3
ptmx symbolic link 777 0:0
pts directory 755 0:0
random character special file 666 1:8
shm directory 1777 0:0
stderr symbolic link 777 0:0
stdin symbolic link 777 0:0
stdout symbolic link 777 0:0
tty character special file 666 5:0
urandom character special file 666 1:9
zero character special file 666 1:5
/proc/self/fd
/proc/self/fd/2
/proc/self/fd/0
/proc/self/fd/1"""
    seen = [line for line in inside(pyrun, script).splitlines() if not line.startswith("core ")]
    assert seen == expected.splitlines()
    assert Path("/proc/kcore").exists() == (inside(pyrun, "readlink /dev/core || true") == "/proc/kcore")


def test_device_nodes_work_and_others_do_not(pyrun: Pyrun) -> None:
    script = (
        "head -c4 /dev/zero | wc -c; head -c8 /dev/urandom | wc -c; echo x > /dev/null && echo null;"
        " echo x > /dev/full || echo full; mknod /disk b 8 0 && mknod /kmsg c 1 11 && echo made;"
        " cat /disk || echo no disk; cat /kmsg || echo no kmsg"
    )
    done = pyrun("run", "--rm", NONE, "busybox", "sh", "-c", script)
    assert done.stdout.split("\n")[:-1] == ["4", "8", "null", "full", "made", "no disk", "no kmsg"]
    assert done.stderr.count("Operation not permitted") == 2


def test_a_mount_in_the_place_of_a_device(pyrun: Pyrun, tmp_path: Path) -> None:
    """What the caller mounts is there, and so are the other devices."""
    (tmp_path / "given").write_text("mine")
    script = "cat /dev/null; test -c /dev/zero -a -c /dev/tty && echo others"
    options = ("--rm", "--net=none", "-v", f"{tmp_path}/given:/dev/null")
    assert pyrun.ok("run", *options, "busybox", "sh", "-c", script) == "mineothers"


def test_mount_options_are_dockers(pyrun: Pyrun) -> None:
    script = "grep -E ' (/proc|/dev|/dev/pts|/dev/mqueue|/dev/shm|/sys) .* - ' /proc/self/mountinfo"
    seen = {}
    for line in inside(pyrun, script).splitlines():
        fields = line.split()
        if fields[3] != "/":  # /proc/sys is a part of /proc
            continue
        separator = fields.index("-")
        seen[fields[4]] = (fields[separator + 1], fields[5], ",".join(fields[separator + 3].split(",")[1:]))
    assert seen == {
        "/proc": ("proc", "rw,nosuid,nodev,noexec,relatime", ""),
        "/dev": ("tmpfs", "rw,nosuid", "size=65536k,mode=755"),
        "/dev/pts": ("devpts", "rw,nosuid,noexec,relatime", "gid=5,mode=620,ptmxmode=666"),
        "/sys": ("sysfs", "ro,nosuid,nodev,noexec,relatime", ""),
        "/dev/mqueue": ("mqueue", "rw,nosuid,nodev,noexec,relatime", ""),
        "/dev/shm": ("tmpfs", "rw,nosuid,nodev,noexec,relatime", "size=65536k"),
    }


def test_masked_paths_are_empty(pyrun: Pyrun) -> None:
    files = "/proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/latency_stats /proc/sched_debug"
    assert inside(pyrun, f"cat {files} 2>&- | head -c1 | wc -c") == "0"
    directories = "/proc/acpi /proc/asound /proc/scsi /sys/firmware /sys/devices/virtual/powercap"
    assert (
        inside(pyrun, f"for i in {directories}; do test -d $i && ls -A $i && touch $i/x 2>&-; done; true")
        == ""
    )
    assert Path("/proc/interrupts").read_text(), "this test would pass without any mask"


def test_read_only_paths(pyrun: Pyrun) -> None:
    script = (
        "for i in /proc/sys /proc/irq /proc/bus /proc/fs /proc/sysrq-trigger; do test -e $i || continue;"
        ' grep -q " $i ro," /proc/self/mountinfo || echo $i; done; (echo x > /proc/sys/kernel/domainname) 2>&1'
        " | grep -c 'Read-only'; (echo 1 > /sys/fs/cgroup/x) 2>&1 | grep -c 'ead-only\\|denied'"
    )
    assert inside(pyrun, script) == "1\n1"


def test_default_limits_and_state(pyrun: Pyrun) -> None:
    script = (
        "umask; cat /proc/self/oom_score_adj; pwd; grep -E 'Groups|NoNewPrivs|Seccomp:' /proc/self/status"
    )
    assert inside(pyrun, script).split() == [
        "0022", "0", "/", "Groups:", "0", "NoNewPrivs:", "0", "Seccomp:", "2",
    ]  # fmt: skip
    assert inside(pyrun, "cut -d' ' -f5,6 /proc/1/stat") == "1 1"  # process group and session of its own
    ignored = inside(pyrun, "grep -E 'SigBlk|SigIgn' /proc/1/status | cut -f2").split()
    assert int(ignored[0], 16) == 0 and int(ignored[1], 16) & 1 << 12 == 0  # SIGPIPE, which Python ignores


def test_unprivileged_ports_and_ping(pyrun: Pyrun) -> None:
    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range"
    assert inside(pyrun, script).split() == ["0", "0", "2147483647"]


def test_etc_files(pyrun: Pyrun) -> None:
    hosts = inside(pyrun, "cat /etc/hosts", "-h", "box")
    assert re.sub(r"fe00::0?\t|ff00::0?\t", "", hosts).split() == [
        "127.0.0.1", "localhost", "::1", "localhost", "ip6-localhost", "ip6-loopback", "ip6-localnet",
        "ip6-mcastprefix",
        "ff02::1", "ip6-allnodes", "ff02::2", "ip6-allrouters",
    ]  # fmt: skip
    assert inside(pyrun, "cat /etc/hostname", "-h", "box") == "box"
    servers = [
        line for line in Path("/etc/resolv.conf").read_text().splitlines() if line.startswith("nameserver")
    ]
    assert inside(pyrun, "grep nameserver /etc/resolv.conf").splitlines() == servers


@pytest.mark.parametrize(("given", "names"), [("box", "box"), ("x.example.com", "x.example.com x")])
def test_the_short_name_stands_behind_the_whole_one(pyrun: Pyrun, given: str, names: str) -> None:
    words = ("--rm", "-h", given, "busybox", "sh", "-c", "tail -1 /etc/hosts; cat /etc/hostname")
    last, whole = pyrun.ok("run", *words).splitlines()
    assert re.fullmatch(rf"[0-9.]+\t{names}", last) and whole == given


def test_etc_files_can_be_written_and_are_its_own(pyrun: Pyrun) -> None:
    before = Path("/etc/hosts").read_text()
    script = "for i in hosts hostname resolv.conf; do echo '# mine' >> /etc/$i && tail -1 /etc/$i; done"
    assert inside(pyrun, script) == "# mine\n# mine\n# mine"
    assert "# mine" not in inside(pyrun, "cat /etc/hosts /etc/resolv.conf")
    assert Path("/etc/hosts").read_text() == before


def test_one_container_does_not_see_the_files_of_another(pyrun: Pyrun) -> None:
    pyrun.ok("run", NONE, "--name", "first", "busybox", "sh", "-c", "echo 1 > /seen; rm /etc/passwd")
    assert inside(pyrun, "ls /seen /etc/passwd 2>&-; true") == "/etc/passwd"
