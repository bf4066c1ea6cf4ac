"""Where mounts go and what they show: links and /proc, the pivot, masks, cgroups.

"The host" is the mount namespace of a forked child; see mounted.py.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import capabilities
from jobs import job_of
from mounted import DEV, PROC, SHOW, Config, Run, Seen, bind, sh, tmpfs
from pyrun.plan.job import Job

needs_user = pytest.mark.needs("user_namespaces")


# ── links, /proc ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["proc", "sysfs"])
@pytest.mark.parametrize("made", ["link", "dangling", "parent", "file"])
def test_proc_and_sysfs_go_on_ordinary_directories(run: Run, root: Path, kind: str, made: str) -> None:
    """CVE-2019-19921, CVE-2023-27561."""
    target = "/p/sub" if made == "parent" else "/p"
    (root / "trap/sub").mkdir(parents=True)
    if made == "file":
        (root / "p").write_text("")
    else:
        (root / "p").symlink_to("/nowhere" if made == "dangling" else "/trap")
    failed = run({"destination": target, "type": kind, "source": kind}).failed
    assert failed == ("MOUNT", errno.ENOTDIR, "must be mounted on ordinary directory")


@pytest.mark.parametrize(
    "entry",
    [tmpfs(target="/link/sys/kernel"), bind("/etc/hostname", target="/link/uptime"), tmpfs(target="/direct")],
)
def test_no_link_leads_a_mount_into_proc(run: Run, root: Path, entry: dict[str, object]) -> None:
    """CVE-2019-16884: what the config does not say, a link of the image would."""
    (root / "link").symlink_to("/proc")
    (root / "direct").symlink_to("../../proc/sys")
    failed = run(entry).failed
    assert failed is not None and failed[1:] == (errno.ENOTDIR, "it leads into /proc")


def test_no_link_leads_a_mount_onto_proc(run: Run, root: Path, source: Path) -> None:
    (root / "link").symlink_to("/proc")
    for entry in (tmpfs(target="/link"), bind(source, target="/link")):
        for standard in ((PROC, DEV), (DEV,)):
            failed = run(entry, standard=standard).failed
            assert failed is not None and failed[1] == errno.ENOTDIR, standard


def test_only_a_procfs_is_bound_on_proc(run: Run, source: Path) -> None:
    failed = run(bind(source, target="/proc"), standard=(DEV,)).failed
    assert failed == ("BIND", errno.ENOTDIR, "/proc must be of type proc")
    assert run(bind("/proc", "rbind", target="/proc"), standard=(DEV,)).mounts()["/proc"]["kind"] == "proc"


def test_what_lxcfs_emulates_may_be_bound(run: Run, source: Path) -> None:
    entries = [bind(source / "file", target=f"/proc/{name}") for name in ("uptime", "net/dev", "cpuinfo")]
    # what is below /proc/net the kernel looks up anew each time: the bind is accepted, and gone
    assert run(*entries, script="cat /proc/uptime /proc/cpuinfo").output == "text" * 2


def test_links_that_lead_elsewhere_are_followed_inside(run: Run, root: Path) -> None:
    (root / "var").mkdir()
    (root / "var/run").symlink_to("/run")
    assert "/run/x" in run(tmpfs("ro", target="/var/run/x")).mounts()


def test_directories_made_for_a_mount(run: Run, root: Path) -> None:
    (root / "s").mkdir()
    (root / "s").chmod(0o7755)
    run(tmpfs(target="/s/a/b"))
    assert [oct((root / "s" / name).stat().st_mode & 0o7777) for name in ("", "a", "a/b")] == [
        "0o7755",
        "0o2755",
        "0o2755",
    ]


# ── the pivot ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("readonly", [False, True])
def test_without_pivot_root(run: Run, root: Path, readonly: bool) -> None:
    script = "ls /; touch /x 2>/dev/null && echo written; ls /../.. | grep -c etc; cat /proc/self/mountinfo"
    seen = run(
        tmpfs("ro"), bind("/etc", "ro", target="/e"), script=script, job=job_of(no_pivot=True),
        config={"root": {"readonly": readonly}},
    )  # fmt: skip
    lines = seen.lines()
    assert ("written" in lines) is not readonly
    assert "0" in lines and "busybox" not in lines
    found = Seen(None, "\n".join(line for line in lines if " - " in line), None).mounts()
    assert "ro" in found["/t"]["options"]  # type: ignore[operator]
    assert [each["kind"] for each in found.values()].count("sysfs") == 0
    assert {target for target, each in found.items() if each["kind"] == "proc"} == {"/proc"}


def test_without_pivot_root_a_shared_host_keeps_its_root(run: Run, root: Path, source: Path) -> None:
    def host() -> None:
        sh("mount", "-t", "tmpfs", "tmpfs", str(source))
        sh("cp", "-a", str(root), str(source / "root"))
        sh("mount", "--make-rshared", "/")

    def meanwhile(pid: int) -> list[str]:
        return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]

    job = job_of(no_pivot=True, root=str(source / "root"))
    told = run(
        host=host,
        meanwhile=meanwhile,
        script="echo ready; read x",
        linux={"rootfsPropagation": "shared"},
        job=job,
    ).told
    assert isinstance(told, list) and told.count("/") == 1 and {"/proc", "/sys"} <= set(told)


@needs_user
def test_without_pivot_root_and_without_rights(run: Run) -> None:
    """The host's proc and sysfs cannot be taken away there: they are covered."""
    seen = run(
        script="ls /; mount -t sysfs s /t 2>&1; cat /proc/self/mountinfo",
        job=job_of(no_pivot=True),
        user=True,
    )
    assert seen.failed is None


@needs_user
@pytest.mark.parametrize("hidden", [False, True])
def test_the_root_of_a_user_namespace(run: Run, root: Path, hidden: bool) -> None:
    """hidden: its directory cannot be reached from there; the planner has opened it."""
    os.chown(root, 100000, 100000)

    def host() -> None:
        root.parent.chmod(0o700 if hidden else 0o755)

    script = "ls /; id -u; touch /made; grep -c . /proc/self/mountinfo; readlink /proc/1/root"
    seen = run(host=host, user=True, script=script, config={"root": {"readonly": False}})
    lines = seen.lines()
    assert lines[:4] == ["bin", "dev", "proc", "0"] and lines[-1] == "/"
    assert int(lines[4]) < 20
    assert (root / "made").stat().st_uid == 100000
    failed = run(host=host, user=True, script="touch /again 2>&1", config={"root": {"readonly": True}})
    assert "Read-only" in failed.output


@pytest.mark.parametrize("user", [False, pytest.param(True, marks=needs_user)])
def test_masks_and_read_only_paths(run: Run, root: Path, user: bool) -> None:
    (root / "t").mkdir()
    section = {
        "maskedPaths": ["/proc/keys", "/proc/acpi", "/t/d", "/none"],
        "readonlyPaths": ["/proc/sys", "/t/r", "/none"],
    }
    script = "cat /proc/keys; ls /t/d; touch /t/d/x /t/r/x 2>&1; echo 1 >/proc/sys/kernel/msgmax"
    seen = run(tmpfs(), tmpfs(target="/t/d"), tmpfs(target="/t/r"), linux=section, script=script, user=user)
    assert seen.output.count("Read-only file system") == 3 and len(seen.lines()) == 3


def test_a_path_masked_twice_is_mounted_once(run: Run, root: Path) -> None:
    (root / "t/d").mkdir(parents=True)
    script = "grep -c ' /t/d ' /proc/self/mountinfo"
    assert run(linux={"maskedPaths": ["/t/d", "/t//d/", "/t/d"]}, script=script).lines() == ["1"]


def test_what_is_below_a_mount_is_found_from_it(run: Run, root: Path, source: Path) -> None:
    """By the mount that is seen there in the end, whatever covers what and by which name; a link out of it is followed
    from the root."""
    (source / "x").mkdir()
    (source / "x/secret").write_text("secret\n")
    (source / "away").symlink_to("/aside")
    for name in ("run", "var", "aside"):
        (root / name).mkdir()
        (root / name / "secret").write_text(f"{name}\n")
    (root / "var/run").symlink_to("/run")
    script = "cat /run/x/secret /aside/secret /var/secret; echo end"

    def shown(*entries: Config, masked: list[str]) -> list[str]:
        return run(*entries, linux={"maskedPaths": masked}, script=script).lines()

    outside = ["aside", "var", "end"]
    assert shown(bind(source, target="/run"), masked=["/run/x/secret"]) == outside
    # the later mount covers the earlier one, under the same name and under another
    assert shown(tmpfs(target="/run/x"), bind(source, target="/run"), masked=["/run/x/secret"]) == outside
    assert shown(tmpfs(target="/run/x"), bind(source, target="/var/run"), masked=["/run/x/secret"]) == outside
    assert shown(bind(source, target="/run"), masked=["/run/away/secret"]) == ["secret", "var", "end"]
    # no mount of init's: as it stands in the root at that moment, and not there is nothing to hide
    found = shown(
        bind(source, target="/run"), masked=["/var//../var/secret", "/var/none", "/var/run/x/secret"]
    )
    assert found == ["aside", "end"]


@needs_user
def test_many_sources_for_a_user_namespace(run: Run, root: Path, source: Path) -> None:
    """Each is a descriptor that init finds at its number, whatever numbers the planner has for them."""
    for number in range(150):
        (source / str(number)).mkdir()
        (source / str(number) / f"f{number}").touch()
    (root / "t").mkdir()
    entries = [bind(source / str(number), target=f"/t/{number}") for number in range(150)]

    def host() -> None:
        source.chmod(0o700)

    seen = run(tmpfs(), *entries, host=host, user=True, script="cd /t; for i in *; do ls $i; done")
    assert sorted(seen.lines()) == sorted(f"f{number}" for number in range(150))


# ── cgroups ────────────────────────────────────────────────────────────────────────────────────────

CGROUP = {"destination": "/c", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "nodev"]}


def in_unified(*namespaces: str) -> Job:
    """A job in this machine's unified hierarchy, wherever it is."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            target = line.split()[4]
            return job_of([("unified", target, "/")], [("unified", target)], namespaces=list(namespaces))
    pytest.skip(capabilities.missing("unified"))


def test_the_unified_hierarchy(run: Run) -> None:
    for namespaces in ((), ("cgroup",)):
        seen = run(CGROUP, job=in_unified(*namespaces)).mounts()["/c"]
        assert seen["kind"] == "cgroup2" and {"rw", "nosuid", "nodev"} <= seen["options"]  # type: ignore[operator]


@needs_user
def test_the_unified_hierarchy_of_a_user_namespace_is_read_only(run: Run, root: Path) -> None:
    """CVE-2023-25809: without a cgroup namespace it is the host's, and may not even be mounted."""
    (root / "c").mkdir()
    seen = run(CGROUP, job=in_unified(), user=True, script=f"touch /c/x 2>&1; {SHOW}")
    assert "Read-only" in seen.lines()[0]
    found = Seen(None, "\n".join(seen.lines()[1:]), None).mounts()["/c"]
    assert found["kind"] == "cgroup2" and "ro" in found["options"]  # type: ignore[operator]


@needs_user
def test_a_hierarchy_that_cannot_be_reached_is_an_empty_directory(run: Run, root: Path) -> None:
    (root / "c").mkdir()
    job = job_of([("unified", "/no/such", "/")], [("unified", "/no/such")])
    seen = run(CGROUP, job=job, user=True, script=f"ls -a /c; touch /c/x 2>&1; {SHOW}")
    assert seen.lines()[:2] == [".", ".."] and "Read-only" in seen.lines()[2]
