"""SHA-256 for the hot path: the interpreter's own C module, without `hashlib` and OpenSSL around it.

`import hashlib` costs milliseconds, this 0.2, and only for who asks for a digest. The module is `_sha256` up
to Python 3.11 and `_sha2` from 3.12; an interpreter built without them has hashlib. A test compares both.
"""

from __future__ import annotations

import sys


def sha256_hex(data: bytes) -> str:
    """The SHA-256 of *data* as 64 lower-case hex digits."""
    try:
        if sys.version_info >= (3, 12):
            from _sha2 import sha256
        else:
            from _sha256 import sha256  # type: ignore[import-not-found]
    except ImportError:
        from hashlib import sha256
    return str(sha256(data).hexdigest())
