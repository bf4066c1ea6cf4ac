"""The lab's internet: an HTTP and a DNS server. Started by `enter` in the namespace called internet.

usage: internet.py ADDRESS FAR_ADDRESS HOST_ADDRESS NEIGHBOUR_ADDRESS

HTTP, port 80 of every address: `GET /` answers "you are <address of the client>"; `GET /bytes/N` sends N bytes.
DNS, port 53, UDP and TCP: the names below (type A); other names do not exist; other types have no record.
Prints "listening" when both can be asked.
"""

from __future__ import annotations

import http.server
import ipaddress
import socketserver
import struct
import sys
import threading

TYPE_A, CLASS_IN, NXDOMAIN = 1, 1, 3


def names(internet: str, far: str, host: str, neighbour: str) -> dict[str, str]:
    """What the DNS server knows."""
    return {
        "internet.test": far,
        "www.internet.test": far,
        "gateway.test": internet,
        "host.test": host,
        "neighbour.test": neighbour,
    }


class Web(http.server.BaseHTTPRequestHandler):
    """Tells the client its address: how a test sees what masquerading did."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        kind, _, size = self.path.strip("/").partition("/")
        body = bytes(int(size)) if kind == "bytes" else f"you are {self.client_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the lab's output is the command's."""


def answer(query: bytes, table: dict[str, str]) -> bytes:
    """The reply to one DNS message (RFC 1035): one question, at most one A record."""
    ident, flags, _, _, _, _ = struct.unpack("!6H", query[:12])
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
        at += 1 + query[at]
    question = query[12 : at + 5]
    kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
    address = table.get(".".join(labels).lower())
    record = b""
    if address and kind == TYPE_A:
        name_of_question = b"\xc0\x0c"  # a pointer to offset 12
        packed = ipaddress.ip_address(address).packed
        record = name_of_question + struct.pack("!2HIH", TYPE_A, CLASS_IN, 60, len(packed)) + packed
    response = 0x8480 | (flags & 0x0100) | (0 if address else NXDOMAIN)
    return struct.pack("!6H", ident, response, 1, 1 if record else 0, 0, 0) + question + record


class Name(socketserver.BaseRequestHandler):
    """One DNS question, by UDP (a pair of message and socket) or TCP (with a length in front)."""

    table: dict[str, str]

    def handle(self) -> None:
        try:
            if isinstance(self.request, tuple):
                message, socket = self.request
                socket.sendto(answer(message, self.table), self.client_address)
            else:
                while size := self.request.recv(2):
                    reply = answer(self.request.recv(struct.unpack("!H", size)[0]), self.table)
                    self.request.sendall(struct.pack("!H", len(reply)) + reply)
        except (struct.error, IndexError, ConnectionError):
            return  # nonsense, or a client that went away


class Tcp(socketserver.ThreadingTCPServer):
    """TCP, one thread a connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


class WebServer(http.server.ThreadingHTTPServer):
    """HTTP that withstands 200 containers at once."""

    request_queue_size = 256


def main(addresses: list[str]) -> None:
    """Serve until killed."""
    internet, far, _, _ = addresses
    Name.table = names(*addresses)
    servers: list[socketserver.BaseServer] = [WebServer(("", 80), Web)]
    for address in (internet, far):  # one socket each, so that an answer comes from the address asked
        servers += [socketserver.UDPServer((address, 53), Name), Tcp((address, 53), Name)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("listening", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
