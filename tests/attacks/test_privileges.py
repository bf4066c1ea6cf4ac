"""What a container may do by default, and what it can reach of the host.

Capabilities, seccomp, masks; sockets and stores. CVE-2022-24769, CVE-2022-29162,
CVE-2016-8867, CVE-2018-10856, CVE-2022-36109, CVE-2022-0492, CVE-2018-10892, CVE-2026-31431, CVE-2020-15257.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import capabilities
import hostile
from command import Pyrun
from pyrun.spec import defaults

DEFAULT = "00000000a80425fb"  # Docker's fourteen
NONE = "0" * 16

# What is taken out of the weakened build.
ALLOWED_UNLESS_NAMED = (
    "spec/seccomp_profile.py",
    r'"defaultAction": table\["default"\]\["action"\],\s+"defaultErrnoRet": [^\n]*',
    '"defaultAction": "SCMP_ACT_ALLOW",',
)

SOCKETCALL_AS_DOCKER_HAS_IT = (
    "spec/seccomp_profile.py",
    r'if "SCMP_ARCH_X86" in architectures:',
    "if False:",
)
SOCKETCALLS = ("socketcall_alg", "socketcall_alg_high", "socketcall_vsock", "socketcall_vsock_high")


def status_of(text: str) -> dict[str, str]:
    return {line.split(":")[0]: line.split(":", 1)[1].strip() for line in text.splitlines() if ":" in line}


@pytest.mark.parametrize(
    ("options", "effective", "bounding"),
    [
        ((), DEFAULT, DEFAULT),
        (("-u", "1000"), NONE, DEFAULT),
        (("--cap-drop=ALL",), NONE, NONE),
        (("--cap-drop=ALL", "--cap-add=CHOWN"), "0" * 15 + "1", "0" * 15 + "1"),
        (("--cap-add=SYS_PTRACE", "-u", "1000:1000"), NONE, "00000000a80c25fb"),
        (("--security-opt=no-new-privileges",), DEFAULT, DEFAULT),
        (("--init",), DEFAULT, DEFAULT),
    ],
)
def test_capabilities(pyrun: Pyrun, options: tuple[str, ...], effective: str, bounding: str) -> None:
    """Inheritable and ambient are empty whatever is asked for, for run and for exec."""
    pyrun.ok("run", "-d", "--name=victim", "--net=none", *options, "busybox", "sleep", "100")
    shown = [pyrun.ok("run", "--rm", "--net=none", *options, "busybox", "cat", "/proc/self/status")]
    shown.append(pyrun.ok("exec", "victim", "cat", "/proc/self/status"))
    shown.append(pyrun.ok("exec", "-u", "0", "victim", "cat", "/proc/self/status"))
    for number, text in enumerate(shown):
        found = status_of(text)
        assert (found["CapInh"], found["CapAmb"], found["CapBnd"]) == (NONE, NONE, bounding), (number, found)
        held = effective if number < 2 else bounding
        assert (found["CapEff"], found["CapPrm"]) == (held, held), (number, found)
        assert found["Seccomp"] == "2", found
        assert found["NoNewPrivs"] == str(int("no-new-privileges" in "".join(options))), found


def test_exec_privileged_and_as_somebody(pyrun: Pyrun) -> None:
    pyrun.ok("run", "-d", "--name=victim", "--net=none", "busybox", "sleep", "100")
    found = status_of(pyrun.ok("exec", "--privileged", "victim", "cat", "/proc/self/status"))
    assert (found["CapInh"], found["CapAmb"], found["Seccomp"]) == (NONE, NONE, "0")
    assert int(found["CapEff"], 16) & 1 << 21  # the control: CAP_SYS_ADMIN is there when asked for
    found = status_of(pyrun.ok("exec", "-u", "1000", "victim", "cat", "/proc/self/status"))
    assert (found["CapInh"], found["CapAmb"], found["CapEff"], found["Groups"]) == (NONE, NONE, NONE, "0")


# ── seccomp ────────────────────────────────────────────────────────────────────────────────────────


def test_the_system_calls_dockers_profile_refuses(pyrun: Pyrun, attacker: Path) -> None:
    """One row a call. The arguments are wrong ones, so that without the profile another error comes."""
    hostile.put_image(pyrun, "evil", lambda root: shutil.copy(attacker, root / "attacker"))
    words = ("run", "--rm", "--net=none", "evil", "/attacker", "calls")
    refused = dict(line.split() for line in pyrun.ok(*words).splitlines())
    unknown = dict.fromkeys(("clone3", *SOCKETCALLS), errno.ENOSYS)
    expected = {**unknown, "af_alg": None, "af_vsock": None}
    for name, number in refused.items():
        if expected.get(name, errno.EPERM) is not None:
            assert int(number) == expected.get(name, errno.EPERM), (name, number)
    assert (
        int(refused["af_alg"]) in (errno.EPERM, errno.EAFNOSUPPORT, errno.EINVAL)
        and int(refused["af_vsock"]) != 0
    )
    assert len(refused) >= 30
    # The control: unconfined, most of them get as far as their arguments.
    free = dict(
        line.split() for line in pyrun.ok("run", "--security-opt=seccomp=unconfined", *words[1:]).splitlines()
    )
    differ = [name for name in refused if refused[name] != free[name]]
    assert len(differ) > 12 and {"af_alg", "clone3", "keyctl", "unshare"} <= set(differ), (differ, free)


def test_a_profile_that_allows_what_it_does_not_name(
    pyrun: Pyrun, attacker: Path, weak_installation: Callable[..., Path]
) -> None:
    hostile.put_image(pyrun, "evil", lambda root: shutil.copy(attacker, root / "attacker"))
    words = ("run", "--rm", "--net=none", "evil", "/attacker", "calls")
    refused = dict(line.split() for line in pyrun.ok(*words).splitlines())
    pyrun.binary = weak_installation(ALLOWED_UNLESS_NAMED).with_name("pyrun")
    shutil.rmtree(pyrun.root / "cache/seccomp")  # filters that were compiled before
    allowed = dict(line.split() for line in pyrun.ok(*words).splitlines())
    assert {"af_alg", "keyctl", "unshare"} <= {name for name in refused if refused[name] != allowed[name]}


def test_socketcall_would_be_a_way_round(
    pyrun: Pyrun, attacker: Path, weak_installation: Callable[..., Path]
) -> None:
    """Docker's own rules, which no filter can apply to arguments in memory: AF_ALG, AF_VSOCK and whatever comes."""
    hostile.put_image(pyrun, "evil", lambda root: shutil.copy(attacker, root / "attacker"))
    pyrun.binary = weak_installation(SOCKETCALL_AS_DOCKER_HAS_IT).with_name("pyrun")
    shutil.rmtree(pyrun.root / "cache/seccomp", ignore_errors=True)  # filters that were compiled before
    words = ("run", "--rm", "--net=none", "evil", "/attacker", "calls")
    reached = dict(line.split() for line in pyrun.ok(*words).splitlines())
    if "socketcall_alg" not in reached:
        pytest.skip("needs a kernel with CONFIG_IA32_EMULATION")
    assert all(int(reached[name]) not in (errno.ENOSYS, errno.EPERM) for name in SOCKETCALLS), reached
    assert {reached["i386_socket_alg"], reached["i386_socket_vsock"]} == {str(errno.EPERM)}


# ── files of the kernel ────────────────────────────────────────────────────────────────────────────

# Docker's list, written down once more, so that a change of the defaults is a change of two files.
MASKED = (
    "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi"
    " /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware"
).split()
READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger".split()


def test_masked_and_read_only_paths(pyrun: Pyrun) -> None:
    assert set(MASKED) == set(defaults.MASKED_PATHS) and set(READ_ONLY) == set(defaults.READONLY_PATHS)
    script = (
        f"for p in {' '.join(MASKED)}; do [ -e $p ] || continue; if [ -d $p ]; then echo $p $(ls -A $p | wc -l);"
        ' else echo $p $(wc -c <$p) $(stat -c %t:%T $p); fi; done; echo -; grep -E " /(proc|sys)(/| )" /proc/mounts'
    )
    masked, _, mounts = pyrun.ok("run", "--rm", "--net=none", "busybox", "sh", "-c", script).partition("-\n")
    rows = [line.split() for line in masked.splitlines()]
    assert rows and all(row[1:] in (["0"], ["0", "1:3"]) for row in rows), rows
    assert {row[0] for row in rows} >= {path for path in MASKED if os.path.exists(path)}
    read_only = {line.split()[1] for line in mounts.splitlines() if line.split()[3].split(",")[0] == "ro"}
    assert read_only >= {path for path in [*READ_ONLY, "/sys"] if os.path.exists(path)}, mounts
    # The control: with --privileged they are there.
    shown = pyrun.ok("run", "--rm", "--net=none", "--privileged", "busybox", "sh", "-c", script).partition(
        "-\n"
    )[0]
    assert shown != masked


V1 = pytest.mark.needs("cgroup1")
CGROUP = "/sys/fs/cgroup" if not capabilities.missing("cgroup2") else "/sys/fs/cgroup/memory"
READ_ONLY_FS, NO_MOUNT, EPERM = "Read-only file system", "mount: permission denied", "Operation not permitted"
EVERYTHING, ADMIN = "--privileged", "--cap-add=SYS_ADMIN"


@pytest.mark.parametrize(
    ("script", "error", "control"),
    [
        (": >>/proc/sys/kernel/core_pattern", READ_ONLY_FS, EVERYTHING),
        (": >>/proc/irq/default_smp_affinity", READ_ONLY_FS, EVERYTHING),
        ("mount -o remount,rw /proc/sys", NO_MOUNT, ADMIN), ("umount /proc/sys", EPERM, ADMIN),
        ("mount -t proc proc /mnt", NO_MOUNT, EVERYTHING), ("mount -t sysfs sysfs /mnt", NO_MOUNT, EVERYTHING),
        ("mount --bind /proc /mnt", NO_MOUNT, ADMIN),
        # CVE-2022-0492 begins with cgroups that can be written to, or mounted
        (f"mkdir {CGROUP}/x && rmdir {CGROUP}/x", READ_ONLY_FS, EVERYTHING),
        (f"echo 1 >{CGROUP}/cgroup.procs", READ_ONLY_FS, EVERYTHING),
        ("mount -o remount,rw /sys/fs/cgroup", NO_MOUNT, ADMIN), ("mount -t cgroup2 none /mnt", NO_MOUNT, EVERYTHING),
        pytest.param("mount -t cgroup -o devices none /mnt", NO_MOUNT, EVERYTHING, marks=V1),
        pytest.param(": >>/sys/fs/cgroup/devices/devices.allow", READ_ONLY_FS, EVERYTHING, marks=V1),
        ("unshare -Urm true", EPERM, EVERYTHING), ("unshare -r true", EPERM, EVERYTHING),
        ("unshare -m true", EPERM, EVERYTHING),
        ("hostname x", EPERM, EVERYTHING), ("ip link set lo mtu 500", EPERM, EVERYTHING),
        ("renice -n -1 -p $$", "Permission denied", EVERYTHING), ("mknod /x c 1 11 && : </x", EPERM, EVERYTHING),
        pytest.param("echo -999 >/proc/1/oom_score_adj", "Permission denied", EVERYTHING,
                     marks=pytest.mark.needs("cap_sys_resource")),
    ],
)  # fmt: skip
def test_what_root_in_a_container_cannot_do(pyrun: Pyrun, script: str, error: str, control: str) -> None:
    """Each as uid 0 with Docker's capabilities, and once with more, where it succeeds: so the row could fail.

    None of these harms the host: files of the kernel are opened, and nothing is written to them.
    """
    words = ("busybox", "sh", "-c", f"mkdir -p /mnt; {script}")
    done = pyrun("run", "--rm", "--net=none", *words)
    assert done.returncode not in (0, 125) and error in done.stderr, done
    pyrun.ok("run", "--rm", "--net=none", control, *words)


def test_no_root_above_the_containers(pyrun: Pyrun, tmp_path: Path) -> None:
    """chroot is among Docker's capabilities, and leads nowhere; with the host's root mounted it leads there."""
    (tmp_path / "canary").write_text("alive\n")
    look = f"chroot $0 /bin/cat {tmp_path}/canary"
    words = ("busybox", "sh", "-c", look)
    done = pyrun("run", "--rm", "--net=none", *words, "/proc/1/root/../..")
    assert done.returncode == 1 and "No such file" in done.stderr, done
    assert pyrun.ok("run", "--rm", "--net=none", "-v", "/:/mnt", *words, "/mnt") == "alive"


def test_disks_cannot_be_opened(pyrun: Pyrun) -> None:
    """mknod is allowed by Docker's capabilities; the device cgroup refuses the open."""
    numbers = [line.split()[:2] for line in Path("/proc/partitions").read_text().splitlines()[2:]]
    numbers = [*numbers[:2], ["7", "0"]]
    names = " ".join(f"b:{major}:{minor}" for major, minor in numbers) + " c:1:1 c:10:237 c:1:11 c:10:200"
    script = (
        f"for n in {names}; do set -- $(echo $n | tr : ' '); mknod /n $1 $2 $3 || exit 3;"
        " head -c1 /n >/dev/null 2>/e; echo $n $? $(cat /e); rm /n; done"
    )
    shown = pyrun.ok("run", "--rm", "--net=none", "busybox", "sh", "-c", script).splitlines()
    *refused, tunnel = shown
    assert len(refused) > 4 and all("Operation not permitted" in line for line in refused), shown
    assert "Operation not permitted" not in tunnel  # the control: 10:200, which runc allows everybody
    inside = pyrun.ok("run", "-d", "--name=victim", "--net=none", "busybox", "sleep", "100")
    assert inside and pyrun.ok("exec", "victim", "sh", "-c", script).splitlines()[0] == shown[0]


def test_only_dockers_devices(pyrun: Pyrun) -> None:
    shown = pyrun.ok(
        "run", "--rm", "--net=none", "busybox", "sh", "-c", "ls -A /dev; stat -c '%a %n' /dev/null /dev/shm"
    )
    names = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split()
    assert set(shown.splitlines()) - {"core"} == {*names, "666 /dev/null", "1777 /dev/shm"} - {"core"}, shown


# ── what is reachable of pyrun itself ──────────────────────────────────────────────────────────────


def test_no_socket_of_ours(pyrun: Pyrun) -> None:
    """A container on the host's network sees the host's abstract sockets (CVE-2020-15257): none is pyrun's."""
    before = set(Path("/proc/net/unix").read_text().splitlines())
    pyrun.ok("run", "-d", "--name=victim", "-p", "8093:80", "busybox", "sleep", "100")
    shown = pyrun.ok("run", "--rm", "--net=host", "busybox", "cat", "/proc/net/unix")
    new = [line.split() for line in shown.splitlines() if line not in before]
    ours = f"{pyrun.runroot}/networks/guard.sock"
    named = [words[7] for words in new if len(words) > 7]  # a name, abstract (@) or not
    assert not [name for name in named if name[0] == "@" or "/networks/guard.sock" not in name], named
    sockets = [path for path in pyrun.runroot.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
    assert [str(path) for path in sockets] == [ours]
    assert (
        stat.S_IMODE(os.lstat(ours).st_mode) == 0o600
        and stat.S_IMODE(os.lstat(pyrun.runroot).st_mode) == 0o700
    )


def test_stores_are_roots(pyrun: Pyrun, tmp_path: Path) -> None:
    """Nobody else enters them, whatever the umask of the first start was."""
    strange = {"PYRUN_ROOT": f"{tmp_path}/new-root", "PYRUN_RUNROOT": f"{pyrun.runroot}-new"}
    subprocess.run(
        ["sh", "-c", f"umask 0; {pyrun.binary} images"],
        env=pyrun.env | strange,
        check=True,
        capture_output=True,
    )
    old = os.umask(0)
    try:
        pyrun.ok("run", "-d", "--name=victim", "busybox", "sleep", "100")
    finally:
        os.umask(old)
    tops = [pyrun.runroot, *(Path(value) for value in strange.values() if Path(value).exists())]
    for top in tops:
        assert stat.S_IMODE(top.stat().st_mode) == 0o700, top
    for path in [
        *pyrun.runroot.rglob("*"),
        *(pyrun.root / "names").iterdir(),
        *(pyrun.root / "containers").glob("*/*.json"),
    ]:
        assert not path.lstat().st_mode & 0o077, (path, oct(path.lstat().st_mode))
    (container,) = (pyrun.root / "containers").iterdir()
    assert not container.stat().st_mode & 0o007
    shutil.rmtree(strange["PYRUN_RUNROOT"], ignore_errors=True)


def test_nobody_gets_at_a_set_user_id_program_of_an_image(pyrun: Pyrun) -> None:
    """CVE-2021-41091: layers hold set-user-ID programs, so no other user may reach them."""

    def change(root: Path) -> None:
        shutil.copy(root / "bin/busybox", root / "bin/evil")
        (root / "bin/evil").chmod(0o4755)

    hostile.put_image(pyrun, "evil", change)
    (program,) = pyrun.root.glob("layers/*/bin/evil")
    pyrun.root.chmod(0o755)  # as careless as it gets: the tests' own store lies where others may look
    for parent in list(program.parents)[: list(program.parents).index(pyrun.root)]:
        assert parent.stat()
    tried = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", str(program), "id"], capture_output=True
    )
    pyrun.root.chmod(0o700)
    assert tried.returncode != 0
