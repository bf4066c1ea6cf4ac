"""Every JSON document that pyrun reads, changed at random: it is taken, or refused in one line; never a traceback."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import attempts
import documents
from pyrun.cgroups import limits_v1, limits_v2, systemd_properties, update
from pyrun.engine import entering
from pyrun.engine.oci import exec_, prepare
from pyrun.engine.oci import update as oci_update
from pyrun.errors import PyrunError
from pyrun.network.drivers import cni, cni_config
from pyrun.plan import catalogue, explain, plan
from pyrun.registry import auth, manifests
from pyrun.spec import seccomp_check, seccomp_compile, seccomp_profile
from pyrun.store import image_writer, platforms

pytestmark = [pytest.mark.root, pytest.mark.lab]
ID = "d" * 64
_LOADED = (catalogue.kinds(), seccomp_check)  # in the parent, so that no child has to


def _config(directory: Path, raw: bytes) -> None:
    """`pyrun-oci create` and `pyrun run --bundle --dry-run`, up to where something is done."""
    bundle = directory / "bundle"
    (bundle / "rootfs").mkdir(parents=True, exist_ok=True)
    (bundle / "config.json").write_bytes(raw)
    for function in (
        lambda: _plan(
            prepare.prepare({"bundle": str(bundle), "root": f"{directory}/oci"}, "box", waits=True)
        ),
        lambda: attempts.pyrun("run", "--dry-run", "--bundle", str(bundle), "box"),
    ):
        _answered(function)


def _answered(function: Callable[[], object]) -> None:
    try:
        function()
    except (PyrunError, OSError):
        pass


def _plan(launch: Any) -> None:
    plan.encode(launch.operations)
    explain.document(launch, "text")


def _process(directory: Path, raw: bytes) -> None:
    """`pyrun-oci exec --process FILE`, up to where the process is born."""
    path = directory / "process.json"
    path.write_bytes(raw)
    config = json.loads(json.dumps(documents.CONFIG))
    process = exec_._process({"process": str(path)}, config, [])
    prepare.add_home(config, process, "/proc/1/root")
    job = exec_._job(
        {"detach": True}, {"id": "box", "pid": 1, "directory": "/d", "namespaces": ["pid", "mount"]}, process
    )
    config["process"] = process
    entering._planned(config, job)


def _resources(directory: Path, raw: bytes) -> None:
    """`pyrun-oci update --resources FILE`, in both hierarchies and by systemd, up to where files are written."""
    path = directory / "resources.json"
    path.write_bytes(raw)
    given = oci_update._document(str(path))
    whole = update.merged(documents.RESOURCES, given)
    wanted = update.to_write(given, whole)
    for function in (
        lambda: limits_v1.limits(wanted),
        lambda: limits_v2.limits(wanted),
        lambda: systemd_properties.limits(wanted, v2=True),
        lambda: systemd_properties.limits(wanted, v2=False),
        lambda: systemd_properties.devices(whole),
    ):
        _answered(function)


def _seccomp(directory: Path, raw: bytes) -> None:
    """`run --security-opt seccomp=FILE`."""
    path = directory / "seccomp.json"
    path.write_bytes(raw)
    profile = seccomp_profile.load_profile(str(path), 1 << 5)
    if profile:
        seccomp_compile.compile_profile(profile)


def _image(directory: Path, raw: bytes) -> None:
    """A start of an image with that configuration."""
    config = image_writer.parse_config(raw, "image")
    record = {
        "id": ID, "names": ["docker.io/library/x:latest"], "layers": ["/var/empty"], "layer_bytes": [1],
        "size_bytes": 1, "diff_ids": config["rootfs"]["diff_ids"], "created": config.get("created") or "",
        "os": config.get("os") or "linux", "architecture": config.get("architecture") or "",
        "variant": config.get("variant") or "", "config": config["config"],
    }  # fmt: skip
    where = directory / "root/images" / ID
    where.mkdir(parents=True, exist_ok=True)
    (where / "image.json").write_text(json.dumps(record))
    for words in (
        ("images",),
        ("run", "--dry-run", "--explain", ID),
        ("run", "--dry-run", "-P", "--net=bridge", ID),
    ):
        _answered(lambda words=words: attempts.pyrun(*words))  # type: ignore[misc]


def _manifest(_: Path, raw: bytes) -> None:
    """What a registry answers when asked for an image."""
    for content_type in ("", "application/vnd.oci.image.index.v1+json"):
        try:
            document = manifests.read(raw, content_type, "image")
            if isinstance(document, manifests.Index):
                manifests.choose(document, platforms.host(), "image")
        except PyrunError:
            pass


def _archive(directory: Path, raw: bytes) -> None:
    """`load` of an archive whose list of images it is, in Docker's and in OCI's form."""
    path = directory / "archive.tar"
    for lists in (("manifest.json",), ("index.json", "oci-layout")):
        with tarfile.open(path, "w") as archive:
            for name, content in (
                *[(each, raw) for each in lists],
                ("config.json", b"{}"),
                ("layer.tar", b""),
            ):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        _answered(lambda: attempts.pyrun("load", "-i", str(path)))


def _cni(directory: Path, raw: bytes) -> None:
    """`run --network cni:net`, whose configuration it is."""
    where = directory / "cni"
    where.mkdir(exist_ok=True)
    (where / "net.conflist").write_bytes(raw)
    os.environ["NETCONFPATH"] = str(where)
    network = cni_config.load("net")
    for number in range(len(network["plugins"])):
        cni_config.request(network, number, {"portMappings": [{}]}, None)
    cni_config.declares(network, "ips")


def _cni_result(directory: Path, raw: bytes) -> None:
    """What a plugin answers."""
    network = {**documents.CNI, "file": "x", "plugins": [{"type": "plugin"}]}
    job = {"network": network, "path": str(directory), "id": "a", "namespace": "/x", "ifname": "eth0", "hostname": "h",
           "arguments": {}}  # fmt: skip
    (directory / "answer").write_bytes(raw)
    program = directory / "plugin"
    program.write_text(f"#!/bin/sh\ncat {directory}/answer\n")
    program.chmod(0o755)
    result = cni._run(job, "ADD", 0, None)
    (directory / "keep").mkdir(exist_ok=True)
    (directory / "keep/hosts").write_text("")
    (directory / "keep/resolv.conf").write_text("")
    cni._record(job, str(directory / "keep"), result or {})


def _login(directory: Path, raw: bytes) -> None:
    """~/.docker/config.json."""
    (directory / "config.json").write_bytes(raw)
    os.environ["DOCKER_CONFIG"] = str(directory)
    auth.credentials("registry.test")
    auth.identity_token("registry.test")
    auth._field(raw, "token")


def _finish(directory: Path, raw: bytes) -> None:
    """`system finish FILE`."""
    path = directory / "job"
    path.write_bytes(raw)
    attempts.pyrun("system", "finish", str(path))


READERS: dict[str, tuple[object, Callable[[Path, bytes], None]]] = {
    "config.json": (documents.CONFIG, _config),
    "process.json": (documents.CONFIG["process"], _process),
    "resources.json": (documents.RESOURCES, _resources),
    "seccomp profile": (documents.SECCOMP, _seccomp),
    "linux.seccomp": (documents.CONFIG["linux"]["seccomp"], _seccomp),
    "image configuration": (documents.IMAGE, _image),
    "index": (documents.INDEX, _manifest),
    "manifest": (documents.MANIFEST, _manifest),
    "manifest.json": (documents.ARCHIVE, _archive),
    "index.json": (documents.INDEX, _archive),
    "CNI configuration": (documents.CNI, _cni),
    "CNI result": (documents.CNI_RESULT, _cni_result),
    "login": (documents.LOGIN, _login),
    "job of a CNI network": ({"network": documents.CNI, "path": "/nowhere", "id": "a", "namespace": "/x",
                              "ifname": "eth0", "arguments": {}, "result": None}, _finish),
}  # fmt: skip


@pytest.mark.parametrize("document", READERS)
def test_a_changed_document(document: str, random_seed: int, seconds: float, tmp_path: Path) -> None:
    original, read = READERS[document]
    first = attempts.tracebacks(lambda: read(tmp_path, documents.text_of(original)), tmp_path)
    assert not first, first
    found: Counter[str] = Counter()
    examples: dict[str, bytes] = {}
    for seed in (1, random_seed):
        chance, deadline = random.Random(seed), time.monotonic() + seconds
        while time.monotonic() < deadline:
            raw = documents.text_of(documents.changed(original, chance))
            if told := attempts.tracebacks(lambda raw=raw: read(tmp_path, raw), tmp_path):  # type: ignore[misc]
                place = "".join(told.rstrip().splitlines()[-3:])
                found[place] += 1
                examples.setdefault(place, raw[:1500] + b"\n" + told.encode()[-1500:])
    assert not found, "\n".join(
        f"{times} times: {examples[place].decode()}" for place, times in found.items()
    )
