"""One repository on one server: manifests and blobs, each checked against the digest it was asked by.

A server that stumbles (500, a broken connection, half a blob) is asked up to three times; one that answers clearly
(401, 404, a wrong digest) is believed at once. A blob goes on at the byte where it broke off: whoever has begun to give
it is asked for twenty seconds, in case it is being started anew, and a line that breaks now and then does not count.
Source: distribution-spec "Pulling manifests", "Pulling blobs".
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable
from typing import BinaryIO
from urllib.parse import urlsplit

from pyrun.errors import ImageError, NotFound, RegistryError
from pyrun.registry import auth, manifests, transport
from pyrun.registry.manifests import Descriptor, Manifest
from pyrun.registry.mirrors import Endpoint
from pyrun.safe import shell_word
from pyrun.store import platforms, references

TRIES = 3
BEGUN_TRIES = 5
_PAUSE_S = (0.2, 1.0, 5.0, 10.0)
_WORTH_BYTES = 1 << 20  # so much has a try to bring for the next one to be as good as the first after it
_CHUNK_BYTES = 1 << 17
_MAX_DEPTH = 2  # an index within an index, no deeper
_ACCEPT = ", ".join(manifests.INDEX_TYPES + manifests.MANIFEST_TYPES)


class Stopped(RegistryError):
    """The caller set the stop event."""


class Repository:
    """The repository *path* of the registry *domain*, asked at *endpoint*."""

    def __init__(self, endpoint: Endpoint, domain: str, path: str, mirrored: bool = False) -> None:
        self.host = urlsplit(endpoint.url).netloc
        self._name = path if mirrored else f"{domain}/{path}"
        self.what = f"{path} at {self.host}" if mirrored else self._name
        self._endpoint = endpoint
        self._path = path
        self._password_of = self.host if mirrored else domain  # a registry's password is not for its mirrors
        self._authorization = ""
        self._lock = threading.Lock()
        self._active: set[transport.Response] = set()
        self.stop = threading.Event()
        self.digests: list[str] = []  # of what `image` found on its way: an index, the manifest

    def abort(self) -> None:
        """End all downloads of other threads at once."""
        self.stop.set()
        for response in list(self._active):
            response.abort()

    def image(self, reference: str, wanted: platforms.Platform) -> Manifest:
        """The manifest behind a tag or digest, for a platform. Raises NotFound, RegistryError, ImageError."""
        for _ in range(_MAX_DEPTH + 1):
            body, content_type = self._manifest(reference)
            self.digests.append(f"sha256:{hashlib.sha256(body).hexdigest()}")
            document = manifests.read(body, content_type, self.what)
            if isinstance(document, Manifest):
                return document
            reference = manifests.choose(document, wanted, self.what).digest
        raise ImageError(f"{self.what}: an index within an index within an index")

    def _manifest(self, reference: str) -> tuple[bytes, str]:
        with self._get(f"manifests/{reference}", {"Accept": _ACCEPT}) as response:
            body = response.read_all(manifests.MAX_BYTES)
            content_type = response.headers.get("Content-Type", "")
            promised = response.headers.get("Docker-Content-Digest", "")
        digest = next((each for each in (reference, promised) if references.is_digest(each)), "")
        try:
            if digest:
                manifests.verify(body, digest, self.what)
        except ImageError as error:
            raise RegistryError(error.message, error.hint) from None
        return body, content_type

    def small_blob(self, descriptor: Descriptor) -> bytes:
        """A blob as bytes: a configuration."""
        file = io.BytesIO()
        self.blob(descriptor, file, lambda count: None)
        return file.getvalue()

    def blob(self, wanted: Descriptor, file: BinaryIO, tell: Callable[[int], None]) -> None:
        """Write a blob to an empty file; *tell* hears how many bytes are there. Raises RegistryError, Stopped."""
        received, problem = _Received(file, wanted, f"{self.what}, blob {wanted.digest[7:19]}"), ""
        made = in_vain = 0
        while in_vain < (BEGUN_TRIES if received.count else TRIES):
            self._pause(max(in_vain, min(made, 1)))
            before = received.count
            start = {"Range": f"bytes={received.count}-"} if received.count else {}
            try:
                with self._get(f"blobs/{wanted.digest}", start) as response:
                    if start and not _continues(response, received.count):
                        received.restart()
                    while data := self._read(response):
                        received.add(data)
                        tell(received.count)
            except transport.Unreachable as error:
                problem = error.message
            if received.count == wanted.size_bytes:
                received.check()
                return
            made += 1
            in_vain = 0 if received.count - before >= _WORTH_BYTES else in_vain + 1
        raise RegistryError(
            f"{received.what}: {received.count} of {wanted.size_bytes} bytes came in {made} tries: "
            f"{problem or 'the answer ended early'}",
            "try again later",
        )

    def _read(self, response: transport.Response) -> bytes:
        if self.stop.is_set():
            raise Stopped("stopped")
        self._active.add(response)
        try:
            return response.read(_CHUNK_BYTES)
        finally:
            self._active.discard(response)

    def _pause(self, attempt: int) -> None:
        if attempt and self.stop.wait(_PAUSE_S[min(attempt, len(_PAUSE_S)) - 1]):
            raise Stopped("stopped")

    def _get(self, path: str, headers: dict[str, str]) -> transport.Response:
        """GET below /v2/NAME/; answers with 200 or 206 only."""
        url = f"{self._endpoint.url}/v2/{self._path}/{path}"
        for attempt in range(TRIES):
            self._pause(attempt)
            try:
                response = self._authorized(url, headers)
            except transport.Unreachable as error:
                if not error.again or attempt == TRIES - 1:
                    raise
                continue
            if response.status in (200, 206):
                return response
            response.close()
            if response.status < 500:
                raise self._refusal(response, path)
        raise transport.Unreachable(
            f"{self.host} answers with status {response.status} to {TRIES} requests", "try again later"
        )

    def _authorized(self, url: str, headers: dict[str, str]) -> transport.Response:
        used = self._authorization
        sent = headers | ({"Authorization": used} if used else {})
        response = transport.get(url, sent, self._endpoint.insecure)
        challenge = response.headers.get("WWW-Authenticate", "")
        if response.status != 401 or not challenge or transport.origin(response.url) != transport.origin(url):
            return response
        response.close()
        with self._lock:  # one thread asks for a token, the others use it
            if self._authorization == used:
                self._authorization = auth.authorization(
                    response, self._password_of, self._path, self._endpoint.insecure
                )
        return transport.get(url, headers | {"Authorization": self._authorization}, self._endpoint.insecure)

    def _refusal(self, response: transport.Response, path: str) -> Exception:
        kind, _, reference = path.partition("/")
        thing = self._name + (f"@{reference}" if references.is_digest(reference) else f":{reference}")
        if response.status == 404:
            missing = thing if kind == "manifests" else f"the blob {reference} of {self.what}"
            return NotFound(f"{self.host} does not have {missing}", "check the spelling of name and tag")
        if response.status in (401, 403):
            return RegistryError(
                f"{self.host} refuses access to {self.what}: it does not exist, or is private",
                "check the spelling; "
                f"`docker login {shell_word(self._password_of)}` stores a password that pyrun reads",
            )
        if response.status == 429:
            return RegistryError(
                f"{self.host} refuses more requests for now (status 429)", "wait, log in, or use a mirror"
            )
        return RegistryError(f"{self.host} answers with status {response.status} for {thing}")


class _Received:
    """What has come of a blob so far."""

    def __init__(self, file: BinaryIO, wanted: Descriptor, what: str) -> None:
        self.count = 0
        self.what = what
        self._file = file
        self._wanted = wanted
        self._hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Keep the next bytes. Raises RegistryError if they are too many."""
        self.count += len(data)
        if self.count > self._wanted.size_bytes:
            raise RegistryError(
                f"{self.what}: larger than the {self._wanted.size_bytes} bytes the manifest says"
            )
        self._hash.update(data)
        self._file.write(data)

    def restart(self) -> None:
        """Forget everything: the server begins anew."""
        self.count = 0
        self._hash = hashlib.sha256()
        self._file.seek(0)
        self._file.truncate()

    def check(self) -> None:
        """Raise RegistryError unless this is the content that was asked for."""
        if f"sha256:{self._hash.hexdigest()}" != self._wanted.digest:
            raise RegistryError(
                f"{self.what}: the content does not match its digest",
                "it was damaged on the way, or tampered with",
            )


def _continues(response: transport.Response, done: int) -> bool:
    return response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
