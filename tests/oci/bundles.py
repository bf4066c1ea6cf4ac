"""The catalogue's bundles: what a process in them sees, mounts, programs. See observing.py."""

from __future__ import annotations

from pathlib import Path

from oci.box import Box
from oci.observing import (
    SECTIONS,
    YOUNGER,
    Facts,
    called,
    crun,
    ended,
    entry,
    everything,
    named,
    namespaces,
    ran,
    runc,
    running,
)

# What is mounted to hide something, and /sys.
MASKS = (
    runc(
        "1.1 mounts the container's own /dev/null, to be written to; ours is the host's (CVE-2025-31133)",
        "mount /proc/keys",
        "mount /proc/timer_list",
    ),
    runc(
        "a read-only superblock below a mount that is read-only",
        "mount /proc/acpi",
        "mount /sys/firmware",
        "mount /sys",
    ),
    crun(
        "a size for the empty one, which is read-only in any case", "mount /proc/acpi", "mount /sys/firmware"
    ),
    crun("a link that dangles where the host has no /proc/kcore", "node /dev/core"),
)


# ── what a process sees ────────────────────────────────────────────────────────────────────────────


@entry(*MASKS, crun("without nosuid", "mount /proc/keys", "mount /proc/timer_list"))
def defaults(box: Box) -> Facts:
    return everything(box)


@entry(
    *MASKS,
    runc(
        "the queues' directory belongs to the root of the host that made the namespace; it is 1777, so nothing follows",
        "node /dev/mqueue",
        unwanted=True,
    ),
    crun(
        "the queues' directory belongs to the root of the host that made the namespace; it is 1777, so nothing follows",
        "node /dev/mqueue",
        unwanted=True,
    ),
    crun("adds noexec to devices that it binds", "mount /dev/*"),
)
def a_user_namespace(box: Box) -> Facts:
    box.map_ids()
    return everything(box)


@entry(*MASKS, crun("without nosuid", "mount /proc/keys", "mount /proc/timer_list"))
def a_user_and_a_cgroup_namespace(box: Box) -> Facts:
    box.namespace("cgroup")
    box.process["user"] = {"uid": 1000, "gid": 1000, "umask": 0o27, "additionalGids": [5, 1000]}
    box.process["cwd"] = "/data"
    return everything(box)


@entry()
def namespaces_made(box: Box) -> Facts:
    running(box)
    return namespaces(box)


@entry()
def a_read_only_root(box: Box) -> Facts:
    box.config["root"]["readonly"] = True
    return ran(box, "touch /x; echo $?; touch /dev/x; echo $?; touch /dev/shm/x; echo $?;"
                    "grep ' / ' /proc/self/mountinfo | cut -d' ' -f6")  # fmt: skip


@entry()
def masks_and_read_only_paths(box: Box) -> Facts:
    box.linux["maskedPaths"] += ["/proc/kcore", "/etc/passwd", "/data", "/absent"]
    box.linux["readonlyPaths"] += ["/var", "/var", "/proc/absent"]
    (box.rootfs / "data/inside").touch()
    return ran(box, "wc -c </etc/passwd; ls /data | wc -l; touch /data/x; echo $?; touch /var/x; echo $?;"
                    "grep -c ' /proc/kcore ' /proc/self/mountinfo; stat -c '%A %t:%T' /proc/kcore")  # fmt: skip


@entry()
def capabilities_of_every_set(box: Box) -> Facts:
    names = ["CAP_KILL", "CAP_NET_RAW"]
    box.process["capabilities"] = dict.fromkeys(
        ("bounding", "effective", "permitted", "inheritable", "ambient"), names
    )
    box.process["noNewPrivileges"] = False
    box.process["user"] = {"uid": 1000, "gid": 1000}
    return ran(box, SECTIONS["capabilities"])


@entry()
def an_unknown_capability(box: Box) -> Facts:
    box.process["capabilities"]["bounding"] = ["CAP_KILL", "CAP_FLYING"]
    return ran(box, "grep CapBnd /proc/self/status")


@entry()
def limits(box: Box) -> Facts:
    box.process["rlimits"] = [
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_STACK", "soft": 1 << 20, "hard": 1 << 24},
    ]
    return ran(box, "grep -E 'core|open files|stack' /proc/self/limits; ulimit -n")


@entry()
def sysctls(box: Box) -> Facts:
    box.linux["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "0", "kernel.msgmax": "4096"}
    return ran(box, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax")


@entry()
def a_score_for_the_oom_killer(box: Box) -> Facts:
    box.process["oomScoreAdj"] = 321
    return ran(box, "cat /proc/self/oom_score_adj")


@entry(runc(YOUNGER, "out"), crun(YOUNGER, "out"))
def a_priority_for_input_and_output(box: Box) -> Facts:
    box.process["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE"}
    return ran(box, "ionice -p 1")


@entry(runc(YOUNGER, "out"), crun(YOUNGER, "out"))
def a_scheduler(box: Box) -> Facts:
    box.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 3}
    return ran(box, "chrt -p 1 | head -1; cut -d' ' -f19 /proc/1/stat")


@entry(crun("allows /dev/console, and not /dev/net/tun as runc", "cgroup"))
def devices(box: Box) -> Facts:
    box.linux["devices"] = [
        {"path": "/dev/here", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8},
        {"path": "/data/fifo", "type": "p"},
        {"path": "/dev/deep/down", "type": "b", "major": 7, "minor": 200},
    ]
    box.resources["devices"] += [{"allow": True, "type": "c", "major": 1, "minor": 5, "access": "r"}]
    facts = ran(box, "for f in /dev/here /data/fifo /dev/deep/down /dev/deep; do stat -c '%F %a %u:%g %t:%T' $f; done;"
                     "dd if=/dev/here bs=1 count=1 2>/dev/null | wc -c; echo >/dev/here")  # fmt: skip
    box.call("delete", "--force", box.id)
    running(box)
    listed = Path("/sys/fs/cgroup/devices")
    if listed.exists():
        facts["cgroup"] = sorted((box.cgroup("devices") / "devices.list").read_text().split("\n"))
    return facts


@entry()
def a_filter(box: Box) -> Facts:
    box.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"},
        ],
    }
    return ran(box, "mkdir /tmp/x 2>&1 | grep -o 'No space'; hostname y 2>&1 | grep -o 'not permitted';"
                    "grep -E '^Seccomp' /proc/self/status")  # fmt: skip


@entry()
def an_environment(box: Box) -> Facts:
    box.process["env"] = ["PATH=/bin", "TWICE=1", "TWICE=2", "EMPTY=", "=odd", "bare", "HOME="]
    return {"out": sorted(ran(box, "tr '\\0' '\\n' </proc/1/environ")["out"])}  # type: ignore[call-overload]


@entry()
def no_environment(box: Box) -> Facts:
    box.process["env"] = []
    return ended(box, ["/bin/busybox", "env"])


# ── mounts ─────────────────────────────────────────────────────────────────────────────────────────


@entry(runc("1.1 puts the mode of the directory below over the one that is asked for", "out"))
def tmpfs_options(box: Box) -> Facts:
    (box.rootfs / "data").chmod(0o1777)
    box.mount("/data", "tmpfs", "tmpfs", "size=1m", "uid=5", "gid=6", "ro", "noexec")
    box.mount("/mnt", "tmpfs", "tmpfs", "mode=0711", "nosuid", "nodev")
    return ran(box, "grep -E ' (/data|/mnt) ' /proc/self/mountinfo | cut -d' ' -f5,6,9; stat -c '%a %u:%g' /data /mnt;"
                    "df -k /data | tail -1 | tr -s ' ' | cut -d' ' -f2")  # fmt: skip


@entry(crun("makes directories with a sticky bit here", "out"))
def a_bind_mount_of_a_relative_path(box: Box) -> Facts:
    (box.bundle / "beside").mkdir()
    (box.bundle / "beside/f").write_text("here\n")
    box.bind("/mnt/made/deep", "beside", "ro")
    return ran(box, "cat /mnt/made/deep/f; touch /mnt/made/deep/g; echo $?; stat -c %a /mnt/made")


@entry()
def a_bind_mount_of_a_file(box: Box) -> Facts:
    (box.directory / "file").write_text("text\n")
    box.bind("/etc/new/file", box.directory / "file", "nosuid", "noexec", "nodev")
    return ran(box, "cat /etc/new/file; grep ' /etc/new/file ' /proc/self/mountinfo | cut -d' ' -f6;"
                    "stat -c %a /etc/new")  # fmt: skip


@entry(
    crun("refuses a link that leads nowhere; runc makes the place inside the root", "made", "out", "status")
)
def destinations_behind_links(box: Box) -> Facts:
    (box.rootfs / "absolute").symlink_to("/data")
    (box.rootfs / "outside").symlink_to("../../../mnt")
    (box.rootfs / "dangling").symlink_to("/made/later")
    for name in ("absolute", "outside", "dangling"):
        box.mount(f"/{name}", "tmpfs", name)
    return ran(box, "grep -E 'absolute|outside|dangling' /proc/self/mountinfo | cut -d' ' -f5") | {
        "made": (box.rootfs / "made/later").is_dir()
    }


@entry()
def a_source_that_is_missing(box: Box) -> Facts:
    box.bind("/mnt", "/absent/source")
    return ran(box, "true", "no such file or directory", "/absent/source")


@entry()
def a_file_onto_a_directory(box: Box) -> Facts:
    (box.directory / "file").touch()
    box.bind("/mnt", box.directory / "file")
    return ran(box, "true", "not a directory")


@entry()
def a_file_system_that_is_unknown(box: Box) -> Facts:
    box.mount("/mnt", "nosuchfs", "none")
    return ran(box, "true", "no such device")


@entry(crun("does not look; the specification and runc want a procfs there (CVE-2019-16884)", "status"))
def something_else_on_proc(box: Box) -> Facts:
    box.mount("/proc", "tmpfs", "tmpfs")
    return ran(box, "true")


@entry()
def propagation(box: Box) -> Facts:
    (box.directory / "shared").mkdir()
    box.bind("/mnt", box.directory / "shared", "rslave")
    box.bind("/data", box.directory / "shared", "rprivate")
    box.linux["rootfsPropagation"] = "rslave"
    return ran(box, "grep -E ' (/|/mnt|/data) ' /proc/self/mountinfo | cut -d' ' -f5,7 | sed 's/:[0-9]*//'")


@entry(crun("shows net_cls and net_prio too; ours shows what runc shows", "out"))
def cgroups_to_be_seen(box: Box) -> Facts:
    box.mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "ro")
    return ran(box, "ls /sys/fs/cgroup | grep -v unified; touch /sys/fs/cgroup/memory/x 2>/dev/null; echo $?;"
                    "grep -c . /sys/fs/cgroup/memory/tasks; readlink /sys/fs/cgroup/cpu")  # fmt: skip


# ── the program ────────────────────────────────────────────────────────────────────────────────────


@entry()
def a_program_that_is_missing(box: Box) -> Facts:
    return named("absolute", ended(box, ["/bin/absent"], "no such file or directory", "/bin/absent")) | named(
        "by name", ended(box, ["absent"], "absent", "not found")
    )


@entry(
    runc("a Go before 1.20 says so of a directory", "directory: says*"),
    crun(
        "execve says so of a directory",
        "directory: says is a directory",
    ),
)
def a_program_that_may_not_be_executed(box: Box) -> Facts:
    (box.rootfs / "data/plain").write_text("#!/bin/sh\n")
    (box.rootfs / "data/plain").chmod(0o644)
    return named("file", ended(box, ["/data/plain"], "permission denied")) | named(
        "directory", ended(box, ["/data"], "permission denied", "is a directory")
    )


@entry()
def a_program_of_no_format(box: Box) -> Facts:
    (box.rootfs / "data/plain").write_text("echo here\n")
    (box.rootfs / "data/plain").chmod(0o755)
    return ended(box, ["/data/plain"], "exec format error")


@entry(crun("takes a relative one; the specification wants it absolute", "relative: *"))
def directories_to_work_in(box: Box) -> Facts:
    facts: Facts = {}
    for name, cwd, word in [
        ("absent", "/srv/new", ""),
        ("a file", "/etc/passwd", "not a directory"),
        ("relative", "data", ""),
        ("empty", "", ""),
    ]:
        box.process["cwd"] = cwd
        facts |= named(name, ran(box, "pwd; stat -c '%a %u' .", *filter(None, [word])))
    return facts


@entry()
def what_it_ends_with(box: Box) -> Facts:
    return (
        named("7", ran(box, "exit 7"))
        | named("signal", ran(box, "kill -9 $$; sleep 1"))
        | named("a child of it", ran(box, "sh -c 'kill -15 $$'; exit $?"))
    )


@entry()
def without_a_program(box: Box) -> Facts:
    facts = named("empty", ended(box, []))
    facts |= named("an empty word", ended(box, [""]))
    process = box.config.pop("process")
    box.write()
    facts |= named("no process", called(box, "run", box.id))
    box.config["process"] = process
    return facts


@entry(
    runc("words of its own", "no file: says no such file or directory"),
    crun("words of its own", "no file: says no such file or directory"),
)
def a_bundle_that_is_none(box: Box) -> Facts:
    facts = named("no file", called(box, "run", box.id, words=("config.json", "no such file or directory")))
    (box.bundle / "config.json").write_text("{")
    facts |= named("no JSON", called(box, "run", box.id))
    box.config["root"]["path"] = "elsewhere"
    box.write()
    facts |= named("no root", called(box, "run", box.id, words=("no such file or directory", "elsewhere")))
    facts |= named("no bundle", called(box, "run", "--bundle", "/absent", box.id, words=("/absent",)))
    return facts
