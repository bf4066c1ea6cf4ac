"""podman and Docker with pyrun-oci as their runtime: what both have, in part beside runc (engines.py says how for all).

After every test the engine removes its containers, and a process or state directory of pyrun-oci's that stays fails
the test (engines.py).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from oci.terminal import read_terminal
from peers import engines
from peers.engines import IMAGE, RUNTIMES, Engine, answers, limit, web
from waiting import until

pytestmark = [pytest.mark.needs("runc"), pytest.mark.timeout(120)]
# where words and figures are expected
beside_runc = pytest.mark.parametrize("runtime", RUNTIMES, indirect=True)


# ── run ────────────────────────────────────────────────────────────────────────────────────────────


def test_run_gives_output_input_and_status(engine: Engine) -> None:
    assert engine.run("--rm", IMAGE, "echo", "hello") == "hello"
    assert engine.run("--rm", "-i", IMAGE, "tr", "a-z", "A-Z", input="typed\n") == "TYPED"
    engine.fails(7, "run", *engine.run_words, "--rm", IMAGE, "sh", "-c", "exit 7")


@beside_runc
def test_a_command_that_is_not_there_or_not_executable(engine: Engine) -> None:
    """The engines tell 127 and 126 from words in the runtime's error."""
    error = engine.fails(127, "run", *engine.run_words, "--rm", IMAGE, "no-such")
    assert 'exec: "no-such": executable file not found in $PATH' in error
    error = engine.fails(126, "run", *engine.run_words, "--rm", IMAGE, "/etc/passwd")
    assert 'exec: "/etc/passwd": permission denied' in error


def test_the_process_is_as_it_was_asked_for(engine: Engine) -> None:
    script = 'id -u; id -g; pwd; echo "$WHO"; ulimit -n; cat /proc/self/oom_score_adj; hostname'
    options = ("-u", "1000:50", "-w", "/tmp", "-e", "WHO=me", "--ulimit", "nofile=100:200",
               "--ulimit", "nproc=1000:1000", "--oom-score-adj", "100", "-h", "named")  # fmt: skip
    printed = engine.run("--rm", *options, IMAGE, "sh", "-c", script)
    assert printed.split() == ["1000", "50", "/tmp", "me", "100", "100", "named"]
    words = ("grep", "-e", "NoNewPrivs", "-e", "Seccomp:", "-e", "CapEff", "/proc/self/status")
    plain = engine.run("--rm", IMAGE, *words).split()
    assert plain[3] == "0" and plain[5] == "2", plain
    options = (
        "--security-opt",
        "no-new-privileges",
        "--security-opt",
        "seccomp=unconfined",
        "--cap-drop",
        "ALL",
    )
    assert engine.run("--rm", *options, IMAGE, *words).split() == [
        "CapEff:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "0",
    ]  # fmt: skip


def test_mounts_devices_and_settings(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host\n")
    options = ("--read-only", "--tmpfs", "/scratch", "-v", f"{tmp_path}:/data:ro", "--shm-size", "1m",
               "--sysctl", "net.ipv4.ip_default_ttl=99", "--device", "/dev/full:/dev/brimming")  # fmt: skip
    script = """cat /data/file; touch /scratch/x && echo scratch; touch /x 2>/dev/null || echo ro
                touch /data/x 2>/dev/null || echo ro; df -k /dev/shm | awk 'END { print $2 }'
                cat /proc/sys/net/ipv4/ip_default_ttl; test -c /dev/brimming && echo device"""
    printed = engine.run("--rm", *options, IMAGE, "sh", "-c", script)
    assert printed.splitlines() == ["of the host", "scratch", "ro", "ro", "1024", "99", "device"]


def test_detached_waited_for_restarted(engine: Engine) -> None:
    engine.start("sh", "-c", "echo begun; sleep 0.2; exit 5")
    assert engine.ok("wait", "box").split()[-1] == "5"
    assert engine.inspect(".State.Status") == "exited"
    engine.ok("start", "box")
    assert engine.ok("wait", "box").split()[-1] == "5"
    assert engine.logs() == "begun\nbegun"


def test_namespaces_shared_with_another_container(engine: Engine) -> None:
    engine.start(*web("shared"))
    options = ("--network", "container:box", "--pid", "container:box")
    script = "until wget -q -O- http://127.0.0.1/; do sleep 0.1; done 2>/dev/null; ps"
    printed = engine.run("--rm", *options, IMAGE, "sh", "-c", script)
    assert printed.splitlines()[0] == "shared" and "httpd" in printed


@beside_runc
def test_a_terminal(engine: Engine) -> None:
    script = """for i in 1 2 3 4 5 6 7 8 9 10; do test "$(stty size)" = "33 77" && break; sleep 0.1; done
                stty size; tty; echo ready; read line; echo "got $line"; exit 5"""
    words = ("run", *engine.run_words, "--rm", "-it", IMAGE, "sh", "-c", script)
    with engine.terminal(*words) as (process, master_fd):
        shown = read_terminal(master_fd, "ready\n")
        assert "33 77\n" in shown and "/dev/pts/0" in shown, shown
        assert "got typed" in answers(master_fd, "typed\n", "got typed\n")
        assert process.wait(20) == 5


def test_a_terminals_interrupt_reaches_the_command(engine: Engine) -> None:
    script = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    words = ("run", *engine.run_words, "--rm", "-it", IMAGE, "sh", "-c", script)
    with engine.terminal(*words) as (process, master_fd):
        read_terminal(master_fd, "ready\n")
        assert "interrupted" in answers(master_fd, "\x03", "interrupted\n")
        assert process.wait(20) == 9


# ── limits ─────────────────────────────────────────────────────────────────────────────────────────


@beside_runc
def test_limits(engine: Engine) -> None:
    engine.start(options=("--memory", "64m", "--pids-limit", "20", "--cpus", "0.5", "--cpu-shares", "512"))
    pid = engine.pid()
    assert limit(pid, "memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert limit(pid, "pids", "pids.max", "pids.max") == "20"
    quota = limit(pid, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0]
    assert quota == "50000"
    script = "i=0; while test $i -lt 40; do sleep 5 & i=$((i + 1)); done; wait"
    assert "fork" in engine("exec", "box", "sh", "-c", script).stderr


def test_a_limit_of_memory_kills(engine: Engine) -> None:
    options = ("--memory", "16m", "--memory-swap", "16m")
    engine.start("sh", "-c", "tail /dev/zero", options=options)
    assert engine.ok("wait", "box").split()[-1] == "137"


@beside_runc
def test_update(engine: Engine) -> None:
    engine.start(options=("--memory", "64m"))
    swap = ("--memory-swap", "96m")
    engine.ok("update", "--memory", "96m", *swap, "--cpus", "0.25", "box")
    pid = engine.pid()
    assert limit(pid, "memory", "memory.limit_in_bytes", "memory.max") == str(96 << 20)
    assert limit(pid, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "25000"
    engine.ok("exec", "box", "true")


# ── while it runs ──────────────────────────────────────────────────────────────────────────────────


@beside_runc
def test_exec(engine: Engine) -> None:
    engine.start(options=("-e", "WHO=box"))
    assert engine.ok("exec", "box", "sh", "-c", 'echo "$WHO"') == "box"
    printed = engine.ok(
        "exec", "-u", "7:8", "-w", "/tmp", "-e", "X=y", "box", "sh", "-c", "id -u; id -g; pwd; echo $X"
    )
    assert printed.split() == ["7", "8", "/tmp", "y"]
    assert engine.ok("exec", "-i", "box", "cat", input="typed") == "typed"
    engine.fails(3, "exec", "box", "sh", "-c", "exit 3")
    engine.ok("exec", "-d", "box", "touch", "/made")
    made = Path(f"/proc/{engine.pid()}/root/made")
    until(made.exists, "the detached command")
    # Docker looks for its words in another place after exec
    missing = 127 if engine.name == "podman" else 126
    assert "executable file not found in $PATH" in engine.fails(missing, "exec", "box", "no-such")
    assert "permission denied" in engine.fails(126, "exec", "box", "/etc/passwd")


def test_exec_with_a_terminal(engine: Engine) -> None:
    engine.start()
    with engine.terminal("exec", "-it", "box", "sh", "-c", "tty; read line; echo got $line; exit 4") as (
        process,
        fd,
    ):
        assert "/dev/pts/" in read_terminal(fd, "\n")
        assert "got typed" in answers(fd, "typed\n", "got typed\n")
        assert process.wait(20) == 4


def test_ps_top_and_stats(engine: Engine) -> None:
    engine.start()
    assert engine.ok("ps", "--format", "{{.Names}} {{.Status}}").startswith("box Up")
    assert "sleep 1000" in engine.ok("top", "box")
    pids, used = engine.ok("stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", "box").split()[:2]
    assert pids == "1"
    assert float(used.rstrip("kKMiB")) > 0
    engine.clean()
    assert engine.ok("ps", "-a", "-q") == ""


def test_pause(engine: Engine) -> None:
    engine.start("sh", "-c", "while :; do echo x >>/count; sleep 0.02; done")
    count = Path(f"/proc/{engine.pid()}/root/count")
    until(count.exists, "the first line")
    engine.ok("pause", "box")
    assert engine.inspect(".State.Status") == "paused"
    frozen = count.stat().st_size
    time.sleep(0.2)  # ten lines of one that runs
    assert count.stat().st_size == frozen
    assert engine("exec", "box", "true").returncode != 0
    engine.ok("unpause", "box")
    assert engine.inspect(".State.Status") == "running"
    until(lambda: count.stat().st_size > frozen, "another line")


def test_removed_while_paused(engine: Engine) -> None:
    engine.start()
    engine.ok("pause", "box")
    engine.clean()


@beside_runc
def test_stop(engine: Engine) -> None:
    """SIGTERM first; what ignores it, is ended."""
    engine.start("sh", "-c", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    until(lambda: "ready" in engine.logs(), "the trap")
    engine.ok("stop", "-t", "10", "box")
    assert (engine.inspect(".State.ExitCode"), engine.logs()) == ("3", "ready\nbye")
    engine.start("sh", "-c", "trap '' TERM; echo ready; sleep 1000", name="deaf")
    until(lambda: "ready" in engine.logs("deaf"), "the trap")
    began = time.monotonic()
    engine.ok("stop", "-t", "1", "deaf")
    assert engine.inspect(".State.ExitCode", "deaf") == "137"
    assert 1 <= time.monotonic() - began < 8


def test_kill(engine: Engine) -> None:
    engine.start("sh", "-c", "trap 'echo usr' USR1; echo ready; while :; do sleep 0.05; done")
    until(lambda: "ready" in engine.logs(), "the trap")
    engine.ok("kill", "-s", "USR1", "box")
    until(lambda: "usr" in engine.logs(), "the signal")
    engine.ok("kill", "box")
    assert engine.ok("wait", "box").split()[-1] == "137"
    error = engine("kill", "box").stderr.lower()
    assert "not running" in error or "container state improper" in error, error


def test_a_published_port(engine: Engine, internet: SimpleNamespace) -> None:
    engine.start(*web("published"), options=("-p", "8085:80"))
    assert engines.page(f"{internet.host}:8085") == "published"
    assert engines.page(f"{internet.host}:8085", "neighbour") == "published"
    asked = engine.ok("exec", "box", "timeout", "5", "wget", "-q", "-O-", f"http://{internet.far}/")
    assert asked == f"you are {internet.host}"


# ── several at once ────────────────────────────────────────────────────────────────────────────────


def test_several_at_once(engine: Engine) -> None:
    """Eight detached starts from four shells; all are there, with a process of their own."""
    script = 'n=$1; shift; exec "$@" --name box-$n busybox sleep 1000'
    command = [*engine.words, "run", *engine.run_words, "-d"]
    words = ["xargs", "-P", "4", "-I", "N", "sh", "-c", script, "sh", "N", *command]
    done = engines.finished(words, 60, "\n".join("12345678"), engine.env)
    assert done.returncode == 0, done.stderr
    pids = {engine.pid(f"box-{number}") for number in range(1, 9)}
    assert len(pids) == 8 and all(os.path.exists(f"/proc/{pid}") for pid in pids)
