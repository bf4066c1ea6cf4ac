"""Pulling: from a real registry filled by skopeo, and from one that does everything wrong.

Everything is on loopback. Whatever happens, the store afterwards holds an image entirely or nothing of it.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from image_files import (
    OCI_MANIFEST,
    Image,
    compressed,
    descriptor,
    digest,
    directory,
    file,
    layout,
    symlink,
    tar,
)
from pyrun.engine import images as engine_images
from pyrun.engine import pull
from pyrun.errors import Conflict, ImageError, NotFound, PyrunError, RegistryError, UsageError
from pyrun.registry import auth, client, manifests, mirrors, proxies, transport
from pyrun.store import images, layers, platforms
from registries import Registry, break_off_after, push, real_registry
from waiting import until

HOST = platforms.host()
NAME = "docker.io/me/app:latest"


def image_of(*layers_: bytes, **options: Any) -> Image:
    return Image(list(layers_), HOST.architecture, HOST.variant, **options)


def an_image(seed: int = 1, **options: Any) -> Image:
    """Two layers, the second with some size, so that it can break off in the middle."""
    data = random.Random(seed).randbytes(300_000)
    return image_of(
        tar(directory("usr"), symlink("bin", "usr"), file("usr/a", b"1")),
        tar(file("bin/b", b"2"), file("big", data)),
        **options,
    )


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYRUN_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("PYRUN_REGISTRIES", str(tmp_path / "registries.yaml"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setattr(client, "_PAUSE_S", (0.01, 0.02, 0.1, 0.4))
    mirror({})
    return tmp_path / "root"


def mirror(table: dict[str, list[dict[str, Any]]]) -> None:
    Path(os.environ["PYRUN_REGISTRIES"]).write_text(json.dumps({"mirrors": table}))  # JSON is YAML


def only(*hosts: str) -> None:
    """docker.io is these servers and nothing else: no test asks the real one."""
    mirror({"docker.io": [{"url": f"http://{host}", "insecure": True, "only": True} for host in hosts]})


@pytest.fixture
def registry() -> Iterator[Registry]:
    server = Registry()
    only(server.host)
    yield server
    server.close()


@pytest.fixture(scope="module")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


def nothing_left(store: Path) -> bool:
    return (
        not images.identifiers() and not list((store / "layers").glob("*")) and not list(store.glob("refs/*"))
    )


def content(image: dict[str, Any]) -> bytes:
    return (Path(image["layers"][1]) / "usr/b").read_bytes()


# ── a real registry ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("options", [(), ("--format=v2s2",), ("--dest-compress-format=gzip",)])
def test_a_real_registry(docker_registry: str, tmp_path: Path, options: tuple[str, ...]) -> None:
    image = an_image()
    push(layout(tmp_path / "layout", image, name="x"), docker_registry, "some/app:1", *options)
    events: list[dict[str, Any]] = []
    pulled = pull.pull(f"{docker_registry}/some/app:1", progress=events.append)
    assert content(pulled) == b"2"
    assert pulled["diff_ids"] == [digest(layer) for layer in image.layers]
    assert options == ("--format=v2s2",) or pulled["id"] == image.id
    assert pulled["config"]["Cmd"] == ["/bin/true"]
    assert {event["state"] for event in events} >= {"waiting", "downloading", "unpacking", "done"}
    assert max(event["current"] for event in events) == max(event["total"] for event in events)
    assert images.find(f"{docker_registry}/some/app:1") == pulled
    again: list[dict[str, Any]] = []
    pull.pull(f"{docker_registry}/some/app:1", progress=again.append)
    assert {event["state"] for event in again} == {"exists"}


def test_several_platforms(docker_registry: str, tmp_path: Path) -> None:
    """The index is read, the machine's own image chosen; another one on request; a missing one explained."""
    own, other = an_image(), Image(an_image(2).layers, "s390x")
    push(layout(tmp_path / "layout", own, other, by_platform=True), docker_registry, "multi:1", "--all")
    assert pull.pull(f"{docker_registry}/multi:1")["id"] == own.id
    assert pull.pull(f"{docker_registry}/multi:1", "linux/s390x")["id"] == other.id
    with pytest.raises(ImageError, match=rf"is for linux/s390x, this machine is {HOST}"):
        pull.ensure(f"{docker_registry}/multi:1")
    with pytest.raises(ImageError, match=r"not available for linux/ppc64le; it is for linux/.*, linux/s390x"):
        pull.pull(f"{docker_registry}/multi:1", "linux/ppc64le")


def test_which_entry_of_an_index() -> None:
    """An index around one image needs no platform, as layouts have it; of several none is guessed."""

    def index(*rows: object) -> manifests.Index:
        row = {"mediaType": OCI_MANIFEST, "digest": "sha256:" + "a" * 64, "size": 9}
        text = json.dumps({"schemaVersion": 2, "manifests": [{**row, "platform": each} for each in rows]})
        found = manifests.read(text.encode(), "", "x")
        assert isinstance(found, manifests.Index)
        return found

    own, other = {"os": HOST.os, "architecture": HOST.architecture}, {"os": "linux", "architecture": "s390x"}
    unknown = {"os": "unknown", "architecture": "unknown"}  # what buildx notes beside an image
    assert manifests.choose(index(None), HOST, "x").digest == "sha256:" + "a" * 64
    assert manifests.choose(index(None, other, own), HOST, "x").platform is not None
    for refused, told in (
        ([None, None], "no platform at all"),
        ([other], "it is for linux/s390x"),
        ([unknown], "no platform at all"),
        ([], "no platform at all"),
        ([None, other], "it is for linux/s390x"),
        ([{**own, "os": "a\n"}] * 2, "no platform at all"),
    ):
        with pytest.raises(ImageError, match=told):
            manifests.choose(index(*refused), HOST, "x")


def test_an_image_that_does_not_say_what_it_is_for() -> None:
    assert str(manifests.platform_of({})) == str(platforms.host())
    assert manifests.platform_of({}, platforms.parse("linux/s390x")).architecture == "s390x"
    assert manifests.platform_of({"architecture": "ppc64le"}).architecture == "ppc64le"
    manifests.check_platform({}, platforms.parse("linux/s390x"), "x")
    with pytest.raises(ImageError, match="is for windows/"):
        manifests.check_platform({"os": "windows"}, HOST, "x")


def test_by_digest(docker_registry: str, tmp_path: Path) -> None:
    image = an_image()
    push(layout(tmp_path / "layout", image, name="x"), docker_registry, "app:1")
    name = f"{docker_registry}/app@{digest(image.manifest)}"
    assert pull.pull(name)["names"] == [name]
    row = engine_images.rows()[0]
    assert (row["tag"], row["digest"]) == ("<none>", digest(image.manifest))


def test_what_was_pulled_by_its_tag_is_found_by_its_digest(docker_registry: str, tmp_path: Path) -> None:
    """By that of the index, which Docker shows, and by that of its own manifest; as long as it is there."""
    own, other = an_image(), Image(an_image(2).layers, "s390x")
    push(layout(tmp_path / "layout", own, other, by_platform=True), docker_registry, "both:1", "--all")
    name = f"{docker_registry}/both"
    pulled = pull.pull(f"{name}:1")
    shown = engine_images.rows()[0]["digest"]
    of_manifest = f"{name}@{digest(own.manifest)}"
    assert pulled["digests"] == [f"{name}@{shown}", of_manifest] and shown != digest(own.manifest)
    for each in pulled["digests"]:
        assert pull.ensure(each, "never") == pulled
        with pytest.raises(Conflict, match="has another name"):
            engine_images.remove([each])
    with pytest.raises(NotFound):
        pull.ensure(f"{docker_registry}/else@{shown}", "never")
    assert [row["digest"] for row in engine_images.rows()] == [shown], "no further names"
    assert pull.pull(f"{name}:1")["digests"] == pulled["digests"]
    pull.pull(f"{name}:1", "linux/s390x")
    assert pull.ensure(of_manifest, "never")["names"] == [], "it has lost its tag"
    assert engine_images.remove([of_manifest])
    with pytest.raises(NotFound):
        pull.ensure(of_manifest, "never")


def test_ensure_pulls_once_and_obeys_the_policy(docker_registry: str, tmp_path: Path) -> None:
    push(layout(tmp_path / "one", an_image(1), name="x"), docker_registry, "policy:1")
    name = f"{docker_registry}/policy:1"
    with pytest.raises(NotFound, match="no local image"):
        pull.ensure(name, "never")
    first = pull.ensure(name)
    push(layout(tmp_path / "two", an_image(2), name="x"), docker_registry, "policy:1")
    assert pull.ensure(name)["id"] == first["id"]
    second = pull.ensure(name, "always")
    assert second["id"] != first["id"]
    assert images.load(first["id"])["names"] == []  # type: ignore[index]
    assert pull.ensure(first["id"])["id"] == first["id"]
    with pytest.raises(UsageError, match="--pull: 'sometimes'"):
        pull.ensure(name, "sometimes")


def test_the_mirror_table_through_a_real_registry(docker_registry: str, tmp_path: Path) -> None:
    """A short name, a mirror for Docker Hub: nobody else is asked."""
    push(layout(tmp_path / "layout", an_image(), name="x"), docker_registry, "library/ubuntu:latest")
    only(docker_registry)
    pulled = pull.ensure("ubuntu")
    assert pulled["names"] == ["docker.io/library/ubuntu:latest"]


# ── names ──────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_tried_is_told(registry: Registry) -> None:
    with pytest.raises(NotFound) as caught:
        pull.ensure("no/such:thing")
    message = caught.value.message
    for part in (
        "no image 'no/such:thing'",
        "not in the local store",
        "no recipe",
        f"{registry.host} does not have no/such:thing",
    ):
        assert part in message
    assert "\n" not in message


def test_images_and_rmi(registry: Registry, store: Path) -> None:
    registry.add("me/app", "latest", an_image())
    registry.add("me/app", "2", an_image())
    for name in ("me/app", "me/app:2"):
        pull.pull(name)
    rows = engine_images.rows()
    assert [(row["repository"], row["tag"]) for row in rows] == [("me/app", "2"), ("me/app", "latest")]
    assert engine_images.rows("me/app:2")[0]["tag"] == "2" and engine_images.rows("other") == []
    identifier = str(rows[0]["id"])
    with pytest.raises(Conflict, match="several names"):
        engine_images.remove([identifier[:12]])
    container = store / "containers" / ("c" * 64)
    container.mkdir(parents=True)
    (container / "container.json").write_text(json.dumps({"image_id": identifier, "name": "web"}))
    assert engine_images.remove(["me/app:2"]) == ["Untagged: me/app:2"]
    with pytest.raises(Conflict, match="used by container web"):
        engine_images.remove(["me/app"])
    assert engine_images.remove(["me/app"], force=True) == ["Untagged: me/app:latest"]
    assert images.load(identifier) and engine_images.rows()[0]["repository"] == "<none>"
    (container / "container.json").unlink()
    container.rmdir()
    assert f"Deleted: sha256:{identifier}" in engine_images.remove([identifier])
    assert nothing_left(store)
    with pytest.raises(NotFound, match="no image 'me/app'"):
        engine_images.remove(["me/app"])


def test_an_image_s_labels_stay_data(registry: Registry) -> None:
    labels = {"pyrun.name": "evil", "io.containerd.runc.v2": "x"}
    registry.add("me/app", "latest", an_image(config={"Labels": labels, "Cmd": ["x"]}))
    image = pull.pull("me/app")
    assert image["config"]["Labels"] == labels
    assert image["names"] == [NAME] and set(image) == {
        "id", "names", "layers", "diff_ids", "layer_bytes", "size_bytes", "created", "os", "architecture", "variant",
        "config", "digests",
    }  # fmt: skip


# ── authentication ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("entry", "password"),
    [
        ({"auth": "bWU6cA=="}, "bWU6cA=="),
        ({"auth": "bWU6cA==\r\nX: y"}, ""),  # nothing but a password gets into a header
        ({"auth": "bWU6c A=="}, ""),
        ({"auth": "bWVw"}, ""),  # no colon
        ({"auth": ["bWU6cA=="]}, ""),
        ({"username": "me"}, ""),
        ("bWU6cA==", ""),
    ],
)
def test_what_is_no_stored_password(tmp_path: Path, entry: object, password: str) -> None:
    (tmp_path / "docker").mkdir()
    file = tmp_path / "docker/config.json"
    file.write_text(json.dumps({"auths": {"here.test": entry, "https://here.test": {"auth": "!"}}}))
    assert auth.credentials("here.test") == password
    assert auth.credentials("there.test") == "" and auth.identity_token("here.test") == ""
    for text in ("[]", "{", '{"auths": null}', '{"auths": 5}', "[" * 100_000):
        file.write_text(text)
        assert auth.credentials("here.test") == ""


def test_a_token_is_fetched_once(registry: Registry) -> None:
    registry.token = "t0ken"
    registry.add("me/app", "latest", an_image())
    pull.pull("me/app")
    assert len([path for path in registry.paths() if path.startswith("/token")]) == 1


def test_a_stored_password(registry: Registry, tmp_path: Path) -> None:
    registry.token, registry.user = "t0ken", "me:pass:word"
    registry.add("me/app", "latest", an_image())
    with pytest.raises(RegistryError, match="asks for a password"):
        pull.pull("me/app")
    store_password(tmp_path, registry.host, "me:wrong")
    with pytest.raises(RegistryError, match="refuses the stored password") as caught:
        pull.pull("me/app")
    assert "wrong" not in caught.value.message + caught.value.hint
    store_password(tmp_path, registry.host, "me:pass:word")
    pull.pull("me/app")


def test_an_identity_token(registry: Registry, tmp_path: Path) -> None:
    """It goes into the body of a POST, and the password beside it, which is none, nowhere."""
    registry.token, registry.user = "t0ken", "identity"
    registry.add("me/app", "latest", an_image())
    store_password(tmp_path, registry.host, "00000000-0000-0000-0000-000000000000:", identitytoken="wrong")
    with pytest.raises(RegistryError, match="refuses the stored password"):
        pull.pull("me/app")
    store_password(tmp_path, registry.host, "00000000-0000-0000-0000-000000000000:", identitytoken="identity")
    pull.pull("me/app")
    assert not [headers for _, headers in registry.log if "Basic" in headers.get("Authorization", "")]
    assert {path for path in registry.paths() if path.startswith("/token")} == {"/token"}


def test_a_registry_on_this_machine_that_speaks_tls(registry: Registry, tmp_path: Path) -> None:
    """Is asked by https, with whatever certificate; one that does not, by http."""
    registry.add("me/app", "latest", an_image())
    pull.pull(f"{registry.host}/me/app")
    registry.speak_tls(tmp_path)
    pull.pull(f"{registry.host}/me/app")


def store_password(tmp_path: Path, host: str, password: str, **more: str) -> None:
    (tmp_path / "docker").mkdir(exist_ok=True)
    auths = {host: {"auth": base64.b64encode(password.encode()).decode(), **more}}
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": auths}))


def test_basic_authentication(registry: Registry, tmp_path: Path) -> None:
    registry.add("me/app", "latest", an_image())
    wanted = "Basic " + base64.b64encode(b"me:secret").decode()
    for path, answer in list(registry.answers.items()):
        registry.special[path] = lambda request, answer=answer: (
            answer
            if request.headers.get("Authorization") == wanted
            else (401, {"WWW-Authenticate": 'Basic realm="x"'}, b"")
        )
    with pytest.raises(RegistryError, match="asks for a password"):
        pull.pull("me/app")
    store_password(tmp_path, registry.host, "me:secret")
    pull.pull("me/app")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ('Bearer realm="http://198.51.100.9/token"', "not https"),
        ('Bearer realm="file:///etc/passwd"', "not https"),
        ("Bearer", "not https"),
        ("Negotiate", "unknown way"),
        ("", "refuses access"),
    ],
)
def test_strange_challenges(registry: Registry, header: str, reason: str) -> None:
    registry.special["/v2/me/app/manifests/latest"] = lambda _: (
        401,
        {"WWW-Authenticate": header} if header else {},
        b"",
    )
    with pytest.raises(RegistryError, match=reason):
        client.Repository(mirrors.Endpoint(f"http://{registry.host}", False), "x", "me/app").image(
            "latest", HOST
        )


def test_challenges_are_parsed() -> None:
    parsed = auth.parse_challenge(
        'Bearer realm="https://a/b?c=d,e",service="x y", scope="repository:a:pull,push",error=bad'
    )
    assert parsed.scheme == "bearer"
    assert parsed.parameters == {
        "realm": "https://a/b?c=d,e", "service": "x y", "scope": "repository:a:pull,push", "error": "bad",
    }  # fmt: skip
    assert auth.parse_challenge(r'Basic realm="a\"b"').parameters == {"realm": 'a"b'}
    assert auth.parse_challenge(r'Basic realm="a\\",x=1').parameters == {"realm": "a\\", "x": "1"}
    assert auth.parse_challenge('BEARER Realm="no end').parameters == {"realm": "no end"}
    assert auth.parse_challenge("Bearer realm") == ("bearer", {"realm": ""})
    assert auth.parse_challenge("  ") == ("", {})


# ── a registry that misbehaves ─────────────────────────────────────────────────────────────────────


def test_redirects_drop_credentials(registry: Registry) -> None:
    """Blobs on another host: the token stays with the registry."""
    registry.token = "t0ken"
    image = an_image()
    registry.add("me/app", "latest", image)
    elsewhere = Registry()
    try:
        for blob in (image.config_text, *image.blobs):
            path = f"/v2/me/app/blobs/{digest(blob)}"
            elsewhere.answers["/cdn" + path] = registry.answers[path]
            target = f"http://{elsewhere.host}/cdn{path}?signature=secret"
            registry.special[path] = lambda _, target=target: (307, {"Location": target}, b"")
        assert content(pull.pull("me/app")) == b"2"
        assert len(elsewhere.log) == 3
        assert not [headers for _, headers in elsewhere.log if "Authorization" in headers]
    finally:
        elsewhere.close()


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://198.51.100.9/x", "plain http is not allowed"),
        ("ftp://x/y", "redirect to"),
        ("", "redirect to"),
        ("/v2/me/app/manifests/latest", "more than 5 redirects"),
        ("http://[bad/", "nonsense"),
        ("http://127.0.0.1:99999/", "nonsense"),
        ("http://127.0.0.1/a b", "not a valid address"),
        ("http://127.0.0.1/a\x7f", "not a valid address"),
    ],
)
def test_bad_redirects(registry: Registry, location: str, reason: str) -> None:
    registry.special["/v2/me/app/manifests/latest"] = lambda _: (302, {"Location": location}, b"")
    with pytest.raises(RegistryError, match=reason):
        pull.pull("me/app")


def test_https_is_not_lowered() -> None:
    with pytest.raises(RegistryError, match="from https to plain http"):
        transport._redirected("https://a/b", "http://a/b")


@pytest.mark.parametrize(
    ("status", "kind", "reason", "requests"),
    [
        (400, RegistryError, "status 400", 1),
        (401, RegistryError, "refuses access to .*me/app", 1),
        (403, RegistryError, "does not exist, or is private", 1),
        (404, NotFound, "does not have", 1),
        (429, RegistryError, "refuses more requests", 1),
        (500, RegistryError, "status 500 to 3 requests", 3),
        (503, RegistryError, "status 503", 3),
    ],
)
def test_statuses(
    registry: Registry, store: Path, status: int, kind: type[PyrunError], reason: str, requests: int
) -> None:
    registry.special["/v2/me/app/manifests/latest"] = lambda _: (status, {}, b"<html>")
    with pytest.raises(kind, match=reason) as caught:
        pull.pull("me/app")
    assert "\n" not in caught.value.message
    assert len(registry.log) == requests
    assert nothing_left(store)


def test_a_server_that_recovers(registry: Registry) -> None:
    registry.add("me/app", "latest", an_image())
    path, failures = "/v2/me/app/manifests/latest", [500, 502]
    registry.special[path] = lambda _: (failures.pop(), {}, b"") if failures else registry.answers[path]
    pull.pull("me/app")
    assert not failures


def changed(document: bytes, **fields: Any) -> bytes:
    return json.dumps(json.loads(document) | fields).encode()


def bad_manifests() -> dict[str, tuple[bytes, str, str]]:
    """name -> (body, content type, reason)."""
    good = an_image().manifest
    config, layers_ = json.loads(good)["config"], json.loads(good)["layers"]
    index_type = manifests.INDEX_TYPES[0]
    return {
        "nonsense": (b"hello", "text/plain", "not a manifest"),
        "html": (b"<html></html>", "text/html", "not a manifest"),
        "empty": (b"", OCI_MANIFEST, "not a manifest"),
        "a list": (b"[]", OCI_MANIFEST, "not a manifest"),
        "deep": (b"[" * 100_000, OCI_MANIFEST, "not a manifest"),
        "nothing in it": (b"{}", OCI_MANIFEST, "neither an image nor an index"),
        "both": (changed(good, manifests=[]), OCI_MANIFEST, "both an index and a manifest"),
        "both, as an index": (
            changed(good, manifests=[], mediaType=index_type),
            index_type,
            "both an index and",
        ),
        "manifest as index": (changed(good, mediaType=index_type), index_type, "contradicts"),
        "index as manifest": (json.dumps({"manifests": []}).encode(), OCI_MANIFEST, "contradicts"),
        "two types": (good, manifests.MANIFEST_TYPES[1], "the document says it is"),
        "type is a number": (changed(good, mediaType=7), OCI_MANIFEST, "the document says"),
        "another kind": (changed(good, mediaType="application/x-helm"), "", "not a container image"),
        "schema 1": (b'{"schemaVersion": 1, "fsLayers": []}', "", "schema 1"),
        "digest with a path": (
            changed(good, config=config | {"digest": "sha256:../../../etc/x"}),
            OCI_MANIFEST,
            "the digest",
        ),
        "digest of another kind": (
            changed(good, config=config | {"digest": "md5:00"}),
            OCI_MANIFEST,
            "the digest",
        ),
        "no digest": (changed(good, config={"size": 1}), OCI_MANIFEST, "the digest None"),
        "negative size": (changed(good, layers=[layers_[0] | {"size": -1}]), OCI_MANIFEST, "the size -1"),
        "size is true": (changed(good, layers=[layers_[0] | {"size": True}]), OCI_MANIFEST, "the size True"),
        "huge config": (changed(good, config=config | {"size": 1 << 40}), OCI_MANIFEST, "the size"),
        "layers are text": (changed(good, layers="x"), OCI_MANIFEST, "expected a list"),
        "too many layers": (changed(good, layers=layers_ * 100), OCI_MANIFEST, "at most 127"),
        "a layer missing": (changed(good, layers=layers_[:1]), OCI_MANIFEST, "1 layers, but 2 diff ids"),
        "encrypted": (
            changed(good, layers=[layers_[0] | {"mediaType": "x+encrypted"}]),
            OCI_MANIFEST,
            "cannot be read",
        ),
    }


@pytest.mark.parametrize("name", bad_manifests())
def test_bad_manifests(registry: Registry, store: Path, name: str) -> None:
    registry.add("me/app", "latest", an_image())
    body, content_type, reason = bad_manifests()[name]
    registry.put_manifest("me/app", "latest", body, content_type)
    with pytest.raises(ImageError, match=reason) as caught:
        pull.pull("me/app")
    assert "\n" not in caught.value.message and len(caught.value.message) < 400
    assert nothing_left(store)


def test_a_manifest_larger_than_allowed(registry: Registry) -> None:
    registry.put_manifest("me/app", "latest", b" " * (5 << 20), OCI_MANIFEST)
    with pytest.raises(RegistryError, match="larger than 4194304"):
        pull.pull("me/app")


def test_a_manifest_that_is_not_what_its_digest_says(registry: Registry) -> None:
    good, bad = an_image(1), an_image(2)
    registry.add("me/app", "latest", bad)
    registry.put_manifest("me/app", digest(good.manifest), bad.manifest, OCI_MANIFEST)
    with pytest.raises(RegistryError, match="does not match its digest"):
        pull.pull(f"me/app@{digest(good.manifest)}")


def test_an_index_without_end(registry: Registry) -> None:
    """An index whose entry is an index whose entry ..."""
    entry = json.loads(an_image().manifest)["config"]
    body = b"{}"
    for _ in range(5):
        row = descriptor(
            body, manifests.INDEX_TYPES[0], platform={"os": "linux", "architecture": HOST.architecture}
        )
        body = json.dumps({"manifests": [row]}).encode()
        registry.put_manifest("me/app", digest(body), body, manifests.INDEX_TYPES[0])
    registry.put_manifest("me/app", "latest", body, manifests.INDEX_TYPES[0])
    assert entry
    with pytest.raises(ImageError, match="index within an index"):
        pull.pull("me/app")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (b"x", "not JSON"),
        (b"[]", "not a container image"),
        (b"{}", "not a container image"),
        (b'{"rootfs": {"diff_ids": []}}', "0 layers"),
        (b'{"rootfs": {"diff_ids": ["sha256:../x"]}}', "diff id"),
        (
            json.dumps({"rootfs": {"diff_ids": [digest(b"")] * 2}, "config": {"Env": "x"}}).encode(),
            "config.Env",
        ),
        (
            json.dumps({"rootfs": {"diff_ids": [digest(b"")] * 2}, "config": {"Cmd": [1]}}).encode(),
            "config.Cmd",
        ),
        (
            json.dumps({"rootfs": {"diff_ids": [digest(b"")] * 2}, "config": {"Cmd": ["a\0b"]}}).encode(),
            "config.Cmd",
        ),
        (json.dumps({"rootfs": {"diff_ids": [digest(b"")] * 2}, "config": []}).encode(), "field config"),
        (
            json.dumps({"rootfs": {"diff_ids": [digest(b"")] * 2}, "architecture": "s390x"}).encode(),
            "is for linux/s390x",
        ),
        (
            json.dumps({"rootfs": {"diff_ids": [digest(b"")] * 2}, "architecture": "\x1b[2J"}).encode(),
            "architecture",
        ),
        (b'{"rootfs": {"diff_ids": ["sha256:%064d"]}, "config": {"Env": ["A=\\ud800"]}}' % 0, "not JSON"),
    ],
)
def test_bad_configurations(registry: Registry, store: Path, config: bytes, reason: str) -> None:
    image = an_image()
    registry.add("me/app", "latest", image)
    registry.answers[f"/v2/me/app/blobs/{digest(config)}"] = (200, {}, config)
    row = descriptor(config, "application/vnd.oci.image.config.v1+json")
    registry.put_manifest("me/app", "latest", changed(image.manifest, config=row), OCI_MANIFEST)
    with pytest.raises(ImageError, match=reason):
        pull.pull("me/app")
    assert nothing_left(store)


def layer_path(image: Image, number: int = 1) -> str:
    return f"/v2/me/app/blobs/{digest(image.blobs[number])}"


def test_half_a_blob_is_continued(registry: Registry) -> None:
    image = an_image()
    registry.add("me/app", "latest", image)
    path = layer_path(image)
    registry.special[path] = break_off_after(120_000, registry.answers[path])
    assert content(pull.pull("me/app")) == b"2"
    ranges = [headers.get("Range") for asked, headers in registry.log if asked == path]
    assert ranges == [None, "bytes=120000-", "bytes=240000-"]


def test_half_a_blob_again_and_again(registry: Registry, store: Path) -> None:
    image = an_image()
    registry.add("me/app", "latest", image)
    path = layer_path(image)
    registry.special[path] = break_off_after(1000, registry.answers[path])
    with pytest.raises(RegistryError, match=r"5000 of \d+ bytes came in 5 tries"):
        pull.pull("me/app")
    assert nothing_left(store)


def test_a_line_that_breaks_now_and_then(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """What each try brings counts, not how many there are."""
    monkeypatch.setattr(client, "_WORTH_BYTES", 20_000)
    image = an_image()
    registry.add("me/app", "latest", image)
    path = layer_path(image)
    registry.special[path] = break_off_after(20_000, registry.answers[path])
    assert content(pull.pull("me/app")) == b"2"
    assert len([asked for asked, _ in registry.log if asked == path]) > client.BEGUN_TRIES


def test_a_registry_that_is_started_anew_meanwhile(registry: Registry) -> None:
    """Whoever has begun to give a blob is waited for, longer than it is asked for anything else."""
    image = an_image()
    registry.add("me/app", "latest", image)
    path, whole = layer_path(image), registry.answers[layer_path(image)]
    broken, away = break_off_after(1000, whole), [503] * (client.TRIES * 3)

    def answer(request: Any) -> Any:
        if not request.headers.get("Range"):
            return broken(request)
        return (away.pop(), {}, b"") if away else whole

    registry.special[path] = answer
    assert content(pull.pull("me/app")) == b"2"


def test_a_server_without_ranges(registry: Registry) -> None:
    """It begins anew each time; so do we."""
    image = an_image()
    registry.add("me/app", "latest", image)
    path, tries = layer_path(image), [1]
    broken, whole = break_off_after(1000, registry.answers[path]), registry.answers[path]

    def answer(request: Any) -> Any:
        if tries:
            tries.pop()
            return broken(request)
        del request.headers["Range"]
        return whole

    registry.special[path] = answer
    assert content(pull.pull("me/app")) == b"2"


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (lambda blob: blob[:-1] + bytes([blob[-1] ^ 1]), "does not match its digest"),
        (lambda blob: blob + b"x", "larger than the"),
        (lambda blob: blob[:1000], "1000 of"),
        (lambda blob: b"", "0 of"),
    ],
)
def test_wrong_blobs(registry: Registry, store: Path, blob: Any, reason: str) -> None:
    image = an_image()
    registry.add("me/app", "latest", image)
    registry.answers[layer_path(image)] = (200, {}, blob(image.blobs[1]))
    with pytest.raises(RegistryError, match=reason):
        pull.pull("me/app")
    assert nothing_left(store)


def test_a_missing_blob(registry: Registry, store: Path) -> None:
    image = an_image()
    registry.add("me/app", "latest", image)
    del registry.answers[layer_path(image)]
    with pytest.raises(NotFound, match="does not have the blob sha256:"):
        pull.pull("me/app")
    assert nothing_left(store)


def test_a_layer_with_the_right_digest_and_another_content(registry: Registry, store: Path) -> None:
    """Manifest and blob agree, the configuration does not: the diff id decides."""
    image = an_image()
    other = compressed(tar(file("evil", b"x")))
    registry.add("me/app", "latest", image)
    registry.answers[f"/v2/me/app/blobs/{digest(other)}"] = (200, {}, other)
    rows = json.loads(image.manifest)["layers"]
    body = changed(image.manifest, layers=[rows[0], descriptor(other, rows[1]["mediaType"])])
    registry.put_manifest("me/app", "latest", body, OCI_MANIFEST)
    with pytest.raises(ImageError, match="layer 2 is not what the image says"):
        pull.pull("me/app")
    assert nothing_left(store)


def test_urls_of_foreign_layers_are_ignored(registry: Registry) -> None:
    image = an_image()
    registry.add("me/app", "latest", image)
    rows = [row | {"urls": ["http://198.51.100.9/steal"]} for row in json.loads(image.manifest)["layers"]]
    registry.put_manifest("me/app", "latest", changed(image.manifest, layers=rows), OCI_MANIFEST)
    pull.pull("me/app")


def test_a_hostile_layer(registry: Registry, store: Path) -> None:
    registry.add("me/app", "latest", image_of(tar(symlink("l", "/etc")), tar(file("l/../../x", b"x"))))
    with pytest.raises(ImageError, match=r"layer 2 is refused at the entry 'l/../../x'"):
        pull.pull("me/app")
    assert nothing_left(store)


# ── mirrors ────────────────────────────────────────────────────────────────────────────────────────


def test_mirrors_are_asked_in_order(registry: Registry) -> None:
    """One that is down, one without the image, one that is broken, then one that has it."""
    empty, broken = Registry(), Registry()
    broken.special["/v2/me/app/manifests/latest"] = lambda _: (500, {}, b"")
    registry.add("me/app", "latest", an_image())
    try:
        only("127.0.0.1:1", empty.host, broken.host, registry.host)
        pull.pull("me/app")
        assert len(empty.log) == 1 and len(broken.log) == 3
        only("127.0.0.1:1", empty.host)
        with pytest.raises(RegistryError, match=r"127.0.0.1:1 cannot be reached: .*; .*does not have"):
            pull.pull("me/other")
    finally:
        empty.close()
        broken.close()


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"Content-Type": "text/html"}, b"<html>please log in</html>"),
        (
            200,
            {"Content-Type": "application/vnd.docker.distribution.manifest.v1+json"},
            b'{"schemaVersion": 1}',
        ),
        (200, {"Content-Type": OCI_MANIFEST}, b"{}"),
    ],
)
def test_a_mirror_that_answers_nonsense_is_passed_over(registry: Registry, answer: Any) -> None:
    """While there is another server; of the last one it is told."""
    odd = Registry()
    odd.answers["/v2/me/app/manifests/latest"] = answer
    registry.add("me/app", "latest", an_image())
    try:
        only(odd.host, registry.host)
        pull.pull("me/app")
        assert odd.log
        only(registry.host, odd.host)
        del registry.answers["/v2/me/app/manifests/latest"]
        with pytest.raises(ImageError, match=f"me/app at {odd.host}"):
            pull.pull("me/app")
    finally:
        odd.close()


def test_the_registry_itself_comes_last() -> None:
    mirror(
        {"docker.io": [{"url": "http://127.0.0.1:1"}], "a.b": [{"url": "https://m/prefix/", "only": True}]}
    )
    assert [each.url for each in mirrors.endpoints("docker.io")] == [
        "http://127.0.0.1:1",
        "https://registry-1.docker.io",
    ]
    assert mirrors.endpoints("a.b") == [mirrors.Endpoint("https://m/prefix", False)]
    assert mirrors.endpoints("localhost:5000") == [mirrors.Endpoint("http://localhost:5000", True)]
    assert mirrors.endpoints("c.d") == [mirrors.Endpoint("https://c.d", False)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "mapping"),
        ("mirror: {}", "mapping"),
        ("mirrors: {docker.io: {}}", "mirrors.docker.io: expected a list"),
        ("mirrors: {docker.io: [{}]}", r"docker.io\[0\]: expected url"),
        ("mirrors: {docker.io: [{url: 'http://example.com'}]}", "needs `insecure: true`"),
        ("mirrors: {docker.io: [{url: 'ftp://x'}]}", "not a plain http or https address"),
        ("mirrors: {docker.io: [{url: 'https://u:p@x'}]}", "not a plain http or https address"),
        ("mirrors: {docker.io: [{url: 'https://x', insecure: maybe}]}", "not true or false"),
        ("mirrors: {docker.io: [{url: 'https://x', extra: 1}]}", "expected url"),
        ("mirrors: [", "not valid YAML"),
        ("a: !!python/object/apply:os.system [id]", "not valid YAML"),
    ],
)
def test_malformed_tables(text: str, reason: str) -> None:
    Path(os.environ["PYRUN_REGISTRIES"]).write_text(text)
    with pytest.raises(UsageError, match=reason):
        mirrors.endpoints("docker.io")


def test_a_mirror_does_not_get_the_registry_s_password(registry: Registry, tmp_path: Path) -> None:
    store_password(tmp_path, "https://index.docker.io/v1/", "me:hub")
    assert auth.credentials("docker.io")
    registry.token, registry.user = "t", "x:y"
    registry.add("me/app", "latest", an_image())
    with pytest.raises(RegistryError, match="asks for a password"):
        pull.pull("me/app")
    assert not [headers for _, headers in registry.log if "Basic" in headers.get("Authorization", "")]


# ── proxies ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def behind(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The registry as the proxy for everything, with a password."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://me:p%40ss@{registry.host}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    return registry


PROXY_PASSWORD = "Basic " + base64.b64encode(b"me:p@ss").decode()


def test_plain_http_goes_through_a_proxy_by_its_whole_address(behind: Registry) -> None:
    """The answer comes from the proxy, which is asked for the mirror and told its own password."""
    behind.add("me/app", "latest", an_image())
    only("mirror.test:8080")
    pull.pull("me/app")
    assert {urlsplit(path).netloc for path in behind.paths()} == {"mirror.test:8080"}
    for _, headers in behind.log:
        assert (headers["Host"], headers["Proxy-Authorization"]) == ("mirror.test:8080", PROXY_PASSWORD)


# http.client of Python 3.11 drops the socket
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_https_goes_through_a_tunnel(behind: Registry) -> None:
    """What is for the server is not for the proxy."""
    told = rf"far.test:443 cannot be reached by the proxy {behind.host}: Tunnel connection failed: 407"
    with pytest.raises(RegistryError, match=told):
        transport.get("https://far.test/v2/", {"Authorization": "Bearer secret"})
    ((target, headers),) = behind.log
    assert (target, headers.get("Proxy-Authorization")) == ("far.test:443", PROXY_PASSWORD)
    assert "Authorization" not in headers
    gc.collect()


@pytest.mark.parametrize(
    ("excepted", "host", "direct"),
    [
        ("10.0.0.0/8", "10.1.2.3", True), ("10.0.0.0/8", "11.1.2.3", False), ("10.0.0.0/8, fd00::/8", "fd00::1", True),
        ("10.1.2.3", "10.1.2.3", True), ("[fd00::1]", "fd00::1", True), ("10.0.0.0/8", "ten.test", False),
        ("far.test", "far.test", True), ("far.test", "a.far.test", True), (".far.test", "a.far.test", True),
        ("far.test:443", "far.test", True), ("far.test:444", "far.test", False), ("*", "far.test", True),
    ],
)  # fmt: skip
def test_whom_no_proxy_names(
    behind: Registry, monkeypatch: pytest.MonkeyPatch, excepted: str, host: str, direct: bool
) -> None:
    monkeypatch.setenv("no_proxy", excepted)
    assert (proxies.choose("https", host, 443) is None) == direct


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("https://p.test", "names a proxy of the kind https://"),
        ("socks5://p.test:1080", "names a proxy of the kind socks5://"),
        ("http://p.test:port", "is no address of a proxy"),
        ("http://", "is no address of a proxy"),
    ],
)
def test_proxies_of_other_kinds(monkeypatch: pytest.MonkeyPatch, address: str, reason: str) -> None:
    monkeypatch.setenv("https_proxy", address)
    with pytest.raises(UsageError, match=f"the variable https_proxy {reason}"):
        transport.get("https://far.test/v2/", {})


# ── interruptions ──────────────────────────────────────────────────────────────────────────────────

_PULL = "import sys; from pyrun.engine import pull; pull.pull(sys.argv[1])"


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_pull_leaves_at_most_a_staging_area(registry: Registry, store: Path, by: int) -> None:
    image = an_image()
    registry.add("me/app", "latest", image)
    path = layer_path(image)
    over = threading.Event()

    def stall(request: Any) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(image.blobs[1])))
        request.end_headers()
        request.wfile.write(image.blobs[1][:1000])
        request.wfile.flush()
        over.wait(10)

    registry.special[path] = stall
    paths = os.pathsep.join(sys.path)
    process = subprocess.Popen(
        [sys.executable, "-c", _PULL, "me/app"],
        env=os.environ | {"PYTHONPATH": paths},
        stderr=subprocess.DEVNULL,
    )
    until(lambda: path in registry.paths(), "the question for the layer")
    until(lambda: list((store / "layers").glob(".new-*")), "its staging area")
    if by == signal.SIGKILL:
        assert layers.sweep() == []  # alive: its staging area is locked
    process.send_signal(by)
    begun = time.monotonic()
    assert process.wait(10) != 0
    assert time.monotonic() - begun < 3
    over.set()
    assert not images.identifiers() and not list(store.glob("refs/*"))
    assert [name[:5] for name in os.listdir(store / "layers")] == ([".new-"] if by == signal.SIGKILL else [])
    del registry.special[path]
    assert content(pull.pull("me/app")) == b"2"
    assert not [name for name in os.listdir(store / "layers") if name.startswith(".")]


def test_two_pulls_at_once(registry: Registry, store: Path) -> None:
    registry.add("me/app", "latest", an_image())
    paths = os.pathsep.join(sys.path)
    processes = [
        subprocess.Popen([sys.executable, "-c", _PULL, "me/app"], env=os.environ | {"PYTHONPATH": paths})
        for _ in range(4)
    ]
    assert [process.wait(30) for process in processes] == [0] * 4
    image: Any = images.find("me/app")
    assert content(image) == b"2"
    assert len(os.listdir(store / "layers")) == 2
