"""Digests for the hot path: the interpreter's own C modules, without `hashlib` and OpenSSL around them.

`import hashlib` costs milliseconds, these 0.2, and only for who asks for a digest. SHA-256 is `_sha256` up to Python
3.11 and `_sha2` from 3.12; an interpreter built without them has hashlib, and the planner's own has no `_sha2` where
libpython.a lacks half of it (csrc/interpreter_build.py). A test compares all.
"""

from __future__ import annotations

import sys


def fingerprint(data: bytes) -> str:
    """64 lower-case hex digits that name *data* among files of ours: its BLAKE2b, of 32 bytes."""
    try:
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b
    return str(blake2b(data, digest_size=32).hexdigest())


def sha256_hex(data: bytes) -> str:
    """The SHA-256 of *data* as 64 lower-case hex digits."""
    try:
        if sys.version_info >= (3, 12):
            from _sha2 import sha256
        else:
            from _sha256 import sha256
    except ImportError:
        from hashlib import sha256
    return str(sha256(data).hexdigest())
