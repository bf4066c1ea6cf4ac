"""A hostile registry: where it leads this host to, and which passwords it gets to see.

The lab host has an address of each kind on its loopback link, so that the registry is as far away as it says, and no
packet leaves. What listens on the other address is the canary.
"""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from command import Pyrun
from image_files import Image, digest, file, tar
from registries import Answer, Registry
from yard import run

PUBLIC, PRIVATE, LINK_LOCAL, LOOPBACK = "192.0.1.9", "10.9.8.7", "169.254.169.254", "127.0.0.1"
MANIFEST = "/v2/me/app/manifests/latest"
PASSWORD = "me:secret"
NEAR = [
    (PUBLIC, LOOPBACK),
    (PUBLIC, LINK_LOCAL),
    (PUBLIC, PRIVATE),
    (PRIVATE, LINK_LOCAL),
    (PRIVATE, LOOPBACK),
]
AS_NEAR = [(PRIVATE, PRIVATE), (LOOPBACK, LOOPBACK), (LOOPBACK, PRIVATE), (PRIVATE, PUBLIC)]
# What is taken out of the weakened builds.
NEAR_IS_FAR = (
    "registry/zones.py",
    r"        if zone > limit:\n            refused",
    "        if False:\n            refused",
)
WHOEVER_ASKS = ("registry/auth.py", r"return bool\(other\) and other in", "return True or other in")
ONE_FOR_ALL = ("registry/transport.py", r"not left and origin\(url\) != first", "False")


@pytest.fixture(scope="module", autouse=True)
def addresses(lab: None) -> Iterator[None]:
    for address in (PUBLIC, PRIVATE, LINK_LOCAL):
        run("ip", "address", "add", f"{address}/32", "dev", "lo")
    yield
    for address in (PUBLIC, PRIVATE, LINK_LOCAL):
        run("ip", "address", "delete", f"{address}/32", "dev", "lo")


@contextmanager
def servers(*addresses: str) -> Iterator[list[Registry]]:
    made = [Registry(address) for address in addresses]
    try:
        yield made
    finally:
        for each in made:
            each.close()


def asks(pyrun: Pyrun, tmp_path: Path, host: str) -> str:
    """Pull from a registry, by plain http, with a password for it; what the error says, or ""."""
    (tmp_path / "docker").mkdir(exist_ok=True)
    auths = {host: {"auth": base64.b64encode(PASSWORD.encode()).decode()}}
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": auths}))
    table = tmp_path / "registries.yaml"
    table.write_text(
        json.dumps({"mirrors": {"x.test": [{"url": f"http://{host}", "insecure": True, "only": True}]}})
    )
    env = {"DOCKER_CONFIG": str(tmp_path / "docker"), "PYRUN_REGISTRIES": str(table)}
    done = pyrun("pull", "x.test/me/app", env=env)
    assert "Traceback" not in done.stderr
    return done.stderr if done.returncode else ""


def challenge(realm: str) -> Callable[[object], Answer]:
    return lambda _: (401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="tests"'}, b"")


def port_of(server: Registry) -> str:
    return server.host.rpartition(":")[2]


# ── where it leads to ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["realm", "manifest", "blob"])
@pytest.mark.parametrize(("registry", "canary"), NEAR)
def test_no_registry_leads_nearer_to_this_host(
    pyrun: Pyrun, tmp_path: Path, registry: str, canary: str, how: str
) -> None:
    with servers(registry, canary) as (evil, near):
        # by plain http no redirect leads to another host, unless that is the loopback
        scheme = "http" if how == "realm" or canary == LOOPBACK else "https"
        lead(evil, f"{scheme}://{near.host}/secret", how)
        error = asks(pyrun, tmp_path, evil.host)
        assert not near.log and f"{canary} is a " in error, error


@pytest.mark.parametrize("how", ["realm", "manifest"])
@pytest.mark.parametrize(("registry", "canary"), AS_NEAR)
def test_a_registry_leads_to_what_is_as_near_as_itself(
    pyrun: Pyrun, tmp_path: Path, registry: str, canary: str, how: str
) -> None:
    with servers(registry, canary) as (first, other):
        if how != "realm":
            other.speak_tls(tmp_path)
        lead(first, f"{'http' if how == 'realm' else 'https'}://{other.host}/there", how)
        error = asks(pyrun, tmp_path, first.host)
        assert len(other.log) == 1 if how == "realm" else f"{canary}: its certificate is not trusted" in error


def lead(evil: Registry, target: str, how: str) -> None:
    """Have a registry name *target* as its token server, or redirect a manifest or a blob to it."""
    image = Image([tar(file("x", b"x"))])
    evil.add("me/app", "latest", image)
    path = f"/v2/me/app/blobs/{digest(image.config_text)}" if how == "blob" else MANIFEST
    evil.special[path] = challenge(target) if how == "realm" else lambda _: (307, {"Location": target}, b"")


@pytest.mark.parametrize("how", ["realm", "manifest"])
@pytest.mark.parametrize(
    "spelled", ["localhost", "127.1", "2130706433", "0.0.0.0", "[::ffff:127.0.0.1]", "twice.test"]
)
def test_the_loopback_by_any_other_name(pyrun: Pyrun, tmp_path: Path, spelled: str, how: str) -> None:
    """What counts is where the socket would be connected to; twice.test is of both, and so only asked in public."""
    with servers(PUBLIC, LOOPBACK) as (evil, near), named("twice.test", PUBLIC, LOOPBACK):
        lead(evil, f"http://{spelled}:{port_of(near)}/secret", how)
        assert asks(pyrun, tmp_path, evil.host) and not near.log


@contextmanager
def named(name: str, *addresses: str) -> Iterator[None]:
    """A name with several addresses, in /etc/hosts of the lab host."""
    hosts = Path("/etc/hosts")
    before = hosts.read_text()
    hosts.write_text(before + "".join(f"{address} {name}\n" for address in addresses))
    try:
        assert len({where[0] for *_, where in socket.getaddrinfo(name, 80)}) == len(addresses)
        yield
    finally:
        hosts.write_text(before)


@pytest.mark.parametrize("how", ["realm", "manifest"])
def test_it_would(pyrun: Pyrun, tmp_path: Path, weak_installation: Callable[..., Path], how: str) -> None:
    pyrun.binary = weak_installation(NEAR_IS_FAR).with_name("pyrun")
    with servers(PUBLIC, LOOPBACK) as (evil, near):
        lead(evil, f"http://{near.host}/secret", how)
        asks(pyrun, tmp_path, evil.host)
        assert [path.partition("?")[0] for path in near.paths()] == ["/secret"]


def test_plain_http_is_for_the_token_server_of_a_registry_that_is_asked_by_it(
    pyrun: Pyrun, tmp_path: Path
) -> None:
    """One that speaks https is on this machine as well, where plain http needs no consent else."""
    with servers(LOOPBACK, LOOPBACK) as (registry, token_server):
        registry.speak_tls(tmp_path)
        registry.special[MANIFEST] = challenge(f"http://{token_server.host}/token")
        message = pyrun.fails(1, "pull", f"{registry.host}/me/app")
        assert "names a token server that is not https" in message and not token_server.log


# ── passwords ──────────────────────────────────────────────────────────────────────────────────────


def with_password(server: Registry) -> list[str]:
    wanted = "Basic " + base64.b64encode(PASSWORD.encode()).decode()
    return [path for path, headers in server.log if headers.get("Authorization") == wanted]


def realm_of_another(pyrun: Pyrun, tmp_path: Path) -> tuple[bool, str]:
    """Whether a token server of another host gets the registry's password, and what the error says."""
    with servers(PRIVATE, PRIVATE) as (registry, thief), named("thief.test", PRIVATE):
        registry.special[MANIFEST] = challenge(f"http://thief.test:{port_of(thief)}/x")
        thief.special["/x"] = lambda _: (401, {}, b"")
        error = asks(pyrun, tmp_path, registry.host)
        assert len(thief.log) == 1
        return bool(with_password(thief)), error


def test_a_password_is_for_the_token_server_of_its_registry(pyrun: Pyrun, tmp_path: Path) -> None:
    """CVE-2026-33540: another one is asked as anybody would ask it."""
    seen, error = realm_of_another(pyrun, tmp_path)
    assert not seen and "thief.test asks for a password" in error and "is not sent there" in error


def test_it_would_be_sent_to_another(
    pyrun: Pyrun, tmp_path: Path, weak_installation: Callable[..., Path]
) -> None:
    pyrun.binary = weak_installation(
        WHOEVER_ASKS,
        ("registry/auth.py", r"if _is_address\(realm\) or _is_address\(registry\)", "if False"),
    ).with_name("pyrun")
    assert realm_of_another(pyrun, tmp_path)[0]


def redirected_and_back(pyrun: Pyrun, tmp_path: Path) -> list[str]:
    """The paths at which a registry's password arrives when another host sends pyrun on, to it and back."""
    with servers(LOOPBACK, LOOPBACK) as (registry, other):
        wanted = 'Basic realm="x"'
        registry.special[MANIFEST] = lambda request: (
            (307, {"Location": f"http://{other.host}/on"}, b"")
            if request.headers.get("Authorization")
            else (401, {"WWW-Authenticate": wanted}, b"")
        )
        other.special["/on"] = lambda _: (307, {"Location": f"http://{registry.host}/chosen/by/other"}, b"")
        asks(pyrun, tmp_path, registry.host)
        assert other.paths() == ["/on"] and registry.paths()[-1] == "/chosen/by/other"
        return [*with_password(registry), *with_password(other)]


def test_no_redirect_takes_a_password_along(pyrun: Pyrun, tmp_path: Path) -> None:
    """Not to another port either, and not back to where another host says."""
    assert redirected_and_back(pyrun, tmp_path) == [MANIFEST]


def test_it_would_be_taken_along(
    pyrun: Pyrun, tmp_path: Path, weak_installation: Callable[..., Path]
) -> None:
    pyrun.binary = weak_installation(ONE_FOR_ALL).with_name("pyrun")
    assert len(redirected_and_back(pyrun, tmp_path)) == 3
