"""The parts of the VM floor that need no guest: the image's key, the initramfs's modules, qemu's words, the job."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

VM = Path(__file__).resolve().parents[1] / "vm"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> object:
    """A module or program of tests/vm, as it is when run as a script."""
    monkeypatch.syspath_prepend(str(VM))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(name: str) -> ModuleType:
        path = VM / name if (VM / name).exists() else VM / f"{name}.py"
        loader = importlib.machinery.SourceFileLoader(f"vm_{name}", str(path))
        module = importlib.util.module_from_spec(
            importlib.util.spec_from_loader(loader.name, loader)  # type: ignore[arg-type]
        )
        monkeypatch.setitem(sys.modules, loader.name, module)
        loader.exec_module(module)
        return module

    return load


def test_the_image_is_another_when_a_script_changes(
    load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = load("cache")  # type: ignore[operator]
    before = cache.image_directory("trixie")
    assert before == cache.image_directory("trixie")
    assert before.name.startswith("trixie-") and before.name != cache.image_directory("bookworm").name
    changed = tmp_path / "provision.sh"
    shutil.copy(cache.PROVISION, changed)
    monkeypatch.setattr(cache, "PROVISION", changed)
    assert cache.image_directory("trixie") == before
    changed.write_text(changed.read_text() + "# changed\n")
    assert cache.image_directory("trixie") != before


def test_old_images_are_removed_but_not_those_in_use(
    load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = load("cache")  # type: ignore[operator]
    monkeypatch.setattr(cache, "CACHE", tmp_path)
    for name in ("trixie-new", "trixie-old", "trixie-used", "bookworm-old"):
        (tmp_path / name / "root").mkdir(parents=True)
    with cache.locked(tmp_path / "trixie-used", shared=True):
        cache.remove_others("trixie", tmp_path / "trixie-new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bookworm-old", "trixie-new", "trixie-used"]


def test_modules_come_after_what_they_need(load: object, tmp_path: Path) -> None:
    lines = ["kernel/erofs.ko.xz: kernel/lz4.ko.xz kernel/crc.ko", "kernel/lz4.ko.xz: kernel/crc.ko", "kernel/crc.ko:",
             "kernel/unrelated.ko:", "kernel/virtio_blk.ko:"]  # fmt: skip
    (tmp_path / "modules.dep").write_text("\n".join(lines))
    order = load("initramfs").in_order(tmp_path)  # type: ignore[operator]
    assert order == ["kernel/virtio_blk.ko", "kernel/crc.ko", "kernel/lz4.ko.xz", "kernel/erofs.ko.xz"]


def test_qemus_words(load: object, tmp_path: Path) -> None:
    machine = load("machine").Machine(tmp_path, True, 2048, 2, "quiet=1")  # type: ignore[operator]
    words = machine.command(tmp_path, tmp_path / "src", {"out": 7}, "file=disk", stored=False)
    assert "fd=7,set=1" in words and "virtserialport,chardev=out,name=vm.out" in words
    assert words[words.index("-nic") + 1] == "none", "the guest has no way out"
    line = words[words.index("-append") + 1]
    assert "vm.init=systemd vm.store=0" in line and line.endswith("quiet=1")
    assert "vm.init=minimal" in load("machine").Machine(tmp_path, False, 1, 1).kernel_line(False)  # type: ignore[operator]


def test_a_job_is_a_script_with_its_environment(load: object) -> None:
    program = load("run")  # type: ignore[operator]
    for words, expected in (
        (["echo $X | cat"], "echo $X | cat"),
        (["printf", "%s", "a b"], "printf %s 'a b'"),
    ):
        job = program.Run.__new__(program.Run)
        job.options = program.parse(["--env", "X=it's", "--", *words])
        now, environment, command, end, _ = job.job().decode().split("\n")
        assert now.startswith("#now ") and environment == "export X='it'\"'\"'s'"
        assert (command, end) == (expected, "---end-of-job---")


def test_junit_is_counted(load: object, tmp_path: Path) -> None:
    counted = load("floor").counted  # type: ignore[operator]
    report = tmp_path / "junit.xml"
    assert counted(report) == (0, 0, 0)
    report.write_text('<testsuites><testsuite tests="9" failures="2" errors="1" skipped="3"/></testsuites>')
    assert counted(report) == (3, 3, 3)


# What no lab host on cgroup v1 has, and a guest has.
OF_GUESTS = {"systemd": "systemd", "apparmor": "systemd", "realtime": "minimal", "deadline": "minimal"}


def test_a_body_of_the_conformance_table_that_only_a_guest_can_run_is_run_there(load: object) -> None:
    """And its verdict goes into a file of that boot's, which the table reads with the others."""
    floor = load("floor")  # type: ignore[operator]
    seen = set()
    for path in sorted((VM.parent / "oci").glob("test_*.py")):
        module = importlib.import_module(f"oci.{path.stem}")
        for name, body in vars(module).items():
            needs = {
                word for mark in getattr(body, "pytestmark", ()) if mark.name == "needs" for word in mark.args
            }
            for need in needs & OF_GUESTS.keys():
                words = floor.TESTS[OF_GUESTS[need]]
                assert f"tests/oci/{path.name}::{name}" in words, (need, name)
                assert f"--verdicts=/results/{floor.VERDICTS[OF_GUESTS[need]]}" in words
                seen.add(need)
    assert seen == OF_GUESTS.keys()
    names = set(floor.VERDICTS.values())
    assert len(names) == len(floor.VERDICTS) and all(Path(name).match("conformance-*.json") for name in names)
