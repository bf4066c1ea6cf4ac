"""The hot path's digests are hashlib's."""

from __future__ import annotations

import builtins
import hashlib
import random

import pytest

from pyrun.digest import fingerprint, sha256_hex


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 1000, 1 << 17])
def test_same_as_hashlib(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert sha256_hex(data) == hashlib.sha256(data).hexdigest()
    assert fingerprint(data) == hashlib.blake2b(data, digest_size=32).hexdigest()


def test_falls_back_to_hashlib(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object) -> object:
        if name in ("_sha2", "_sha256", "_blake2"):
            raise ImportError(name)
        return real(name, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    assert sha256_hex(b"abc").startswith("ba7816bf8f01cfea")
    assert fingerprint(b"abc").startswith("bddd813c63423972")
