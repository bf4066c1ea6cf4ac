"""Registries for the tests, on loopback: a real one (Debian's docker-registry), and one that misbehaves on request.

The real one is filled by skopeo, an independent client. The other is a small HTTP server in the test's own
process that serves images from memory; a test replaces any of its answers, asks for tokens, and reads its log.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from image_files import OCI_INDEX, OCI_MANIFEST, Image, digest, index

_CONFIG = """version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: "{store}"}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@contextmanager
def real_registry(directory: Path) -> Iterator[str]:
    """Start docker-registry with its store below *directory*; yields `127.0.0.1:PORT`."""
    program = shutil.which("docker-registry")
    assert program, "apt-get install docker-registry"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = directory / "registry.yml"
    config.write_text(_CONFIG.format(store=directory / "registry", port=port))
    with open(directory / "registry.log", "wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        for _ in range(200):
            assert process.poll() is None, (directory / "registry.log").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def push(layout: Path, registry: str, name: str, *options: str) -> None:
    """Copy an OCI layout into a registry with skopeo; *options* such as --all or --format=v2s2."""
    command = ["skopeo", "--insecure-policy", "copy", *options, "--dest-tls-verify=false", f"oci:{layout}"]
    done = subprocess.run(
        [*command, f"docker://{registry}/{name}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# ── the one that misbehaves ────────────────────────────────────────────────────────────────────────

Answer = tuple[int, dict[str, str], bytes]


class Registry:
    """A registry in memory. Replace answers in `special`: path -> function of the request's handler.

    A function returns (status, headers, body), or None after it has answered by itself. `log` holds
    (path, headers) of every request. With `token`, only requests that carry it are answered. As a proxy
    it answers for everybody, and refuses tunnels.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.answers: dict[str, Answer] = {}
        self.special: dict[str, Callable[[Any], Answer | None]] = {}
        self.log: list[tuple[str, dict[str, str]]] = []
        self.token = ""
        self.user = ""  # `name:password` the token server wants, if any
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.log.append((self.path, dict(self.headers)))
                answer = registry.answer(self)
                if answer is not None:
                    send(self, *answer)

            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                registry.log.append((self.path, dict(self.headers)))
                send(self, *registry.exchange({key: value for key, (value,) in parse_qs(form).items()}))

            def do_CONNECT(self) -> None:
                registry.log.append((self.path, dict(self.headers)))
                self.send_error(407)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:  # clients here hang up in the middle
                pass

        self._server = Server((address, 0), Handler)
        self.host = f"{address}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def speak_tls(self, directory: Path) -> None:
        """From now on by https, with a certificate nobody knows."""
        certificate, key = directory / "certificate.pem", directory / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-nodes", "-subj", "/CN=localhost", "-newkey", "ec",
             "-pkeyopt", "ec_paramgen_curve:P-256", "-out", certificate, "-keyout", key],
            capture_output=True, check=True,
        )  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, name: str, tag: str, *images: Image) -> None:
        """Serve an image, or several by platform, as name:tag."""
        for image in images:
            for blob in (image.config_text, *image.blobs):
                self.answers[f"/v2/{name}/blobs/{digest(blob)}"] = (200, {}, blob)
            self.put_manifest(name, digest(image.manifest), image.manifest, OCI_MANIFEST)
            self.put_manifest(name, tag, image.manifest, OCI_MANIFEST)
        if len(images) > 1:
            for reference in (tag, digest(index(*images))):
                self.put_manifest(name, reference, index(*images), OCI_INDEX)

    def put_manifest(self, name: str, reference: str, body: bytes, media_type: str) -> None:
        """Serve *body* as the manifest of a tag or digest."""
        self.answers[f"/v2/{name}/manifests/{reference}"] = (200, {"Content-Type": media_type}, body)

    def answer(self, request: Any) -> Answer | None:
        """The answer to one request."""
        parts = urlsplit(request.path)
        if parts.path == "/token":
            return self._token_answer(request, parse_qs(parts.query))
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            realm = f'Bearer realm="http://{self.host}/token",service="tests",scope="repository:x:pull"'
            return 401, {"WWW-Authenticate": realm}, b"{}"
        if parts.path in self.special:
            return self.special[parts.path](request)
        return self.answers.get(parts.path, (404, {}, b'{"errors": []}'))

    def _token_answer(self, request: Any, query: dict[str, list[str]]) -> Answer:
        assert query["service"] == ["tests"] and query["scope"] == ["repository:x:pull"]
        wanted = "Basic " + base64.b64encode(self.user.encode()).decode()
        if self.user and request.headers.get("Authorization") != wanted:
            return 401, {}, b"{}"
        return 200, {}, json.dumps({"token": self.token}).encode()

    def exchange(self, form: dict[str, str]) -> Answer:
        """The answer to an identity token, which is `name:password` here."""
        assert (form["grant_type"], form["service"], form["scope"]) == (
            "refresh_token",
            "tests",
            "repository:x:pull",
        )
        assert form["client_id"]
        if form["refresh_token"] != self.user:
            return 400, {}, b'{"error": "invalid_grant"}'
        return 200, {}, json.dumps({"access_token": self.token}).encode()

    def paths(self) -> list[str]:
        """The paths asked for, in order."""
        return [path for path, _ in self.log]


def send(request: Any, status: int, headers: dict[str, str], body: bytes) -> None:
    """Answer with ranges, as registries do."""
    wanted = request.headers.get("Range", "")
    if status == 200 and wanted.startswith("bytes=") and wanted.endswith("-"):
        first = int(wanted[6:-1])
        headers = headers | {"Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"}
        status, body = 206, body[first:]
    request.send_response(status)
    for key, value in ({"Content-Length": str(len(body))} | headers).items():
        request.send_header(key, value)
    request.end_headers()
    request.wfile.write(body)


def break_off_after(count: int, answer: Answer) -> Callable[[Any], Answer | None]:
    """An answer whose connection ends after *count* bytes of the body, each time."""

    def misbehave(request: Any) -> None:
        body = answer[2]
        first = int((request.headers.get("Range") or "bytes=0-")[6:-1])
        request.send_response(206 if first else 200)
        request.send_header("Content-Length", str(len(body) - first))
        if first:
            request.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        request.end_headers()
        request.wfile.write(body[first : first + count])
        request.wfile.flush()
        request.close_connection = True
        request.connection.shutdown(socket.SHUT_RDWR)

    return misbehave
