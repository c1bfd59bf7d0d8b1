"""Key providers: the key, or a reason; never another key."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from broker_crypto.errors import StoreUnavailable, UsageError
from broker_crypto.storage import EnvKey, FileKey, make_key_file

KEY = bytes(range(32))


def test_a_made_key_file_is_private_random_and_gives_its_key(tmp_path: Path) -> None:
    one, two = tmp_path / "one.key", tmp_path / "two.key"
    old = os.umask(0)
    try:
        make_key_file(one)
        make_key_file(two)
    finally:
        os.umask(old)
    assert stat.S_IMODE(one.stat().st_mode) == 0o600
    assert FileKey(one).key() == one.read_bytes() != FileKey(two).key()
    assert len(FileKey(one).key()) == 32


def test_a_key_file_that_exists_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "store.key"
    make_key_file(path)
    before = path.read_bytes()
    with pytest.raises(UsageError):
        make_key_file(path)
    assert path.read_bytes() == before


def test_a_key_file_that_cannot_be_written_or_read_is_the_worlds_fault(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        make_key_file(tmp_path / "missing" / "store.key")
    with pytest.raises(StoreUnavailable):
        FileKey(tmp_path / "missing.key").key()
    with pytest.raises(StoreUnavailable):
        FileKey(tmp_path).key()


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_file_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "store.key"
    path.write_bytes(bytes(length))
    path.chmod(0o600)
    with pytest.raises(UsageError):
        FileKey(path).key()


def test_a_key_file_that_others_may_touch_is_refused_in_every_mode(tmp_path: Path) -> None:
    path = tmp_path / "store.key"
    path.write_bytes(KEY)
    allowed = 0o640 if path.stat().st_uid == 0 else 0o600
    for mode in range(0o1000):
        path.chmod(mode)
        if mode & 0o077 & ~allowed and mode & 0o400:
            with pytest.raises(UsageError):
                FileKey(path).key()
        elif mode & 0o400:
            assert FileKey(path).key() == KEY


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_key_file_of_another_user_is_refused_to_the_group(tmp_path: Path) -> None:
    path = tmp_path / "store.key"
    path.write_bytes(KEY)
    os.chown(path, 12345, 12345)
    path.chmod(0o640)
    with pytest.raises(UsageError):
        FileKey(path).key()
    path.chmod(0o600)
    assert FileKey(path).key() == KEY


def test_a_variable_gives_its_key() -> None:
    text = base64.b64encode(KEY).decode()
    assert EnvKey("STORE_KEY", {"STORE_KEY": text}).key() == KEY
    assert EnvKey("STORE_KEY", {"STORE_KEY": f"  {text}\n"}).key() == KEY


def test_a_variable_is_read_from_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_CRYPTO_TEST_KEY", base64.b64encode(KEY).decode())
    assert EnvKey("BROKER_CRYPTO_TEST_KEY").key() == KEY


@pytest.mark.parametrize(
    "text", ["", "AAAA", base64.b64encode(bytes(31)).decode(), base64.b64encode(bytes(33)).decode(), "!" * 44, "é" * 44, KEY.hex() + "zz"]
)
def test_a_variable_that_holds_no_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        EnvKey("STORE_KEY", {"STORE_KEY": text}).key()
    assert not text or text not in str(raised.value)


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(UsageError, match="STORE_KEY"):
        EnvKey("STORE_KEY", {}).key()


def test_a_provider_shows_where_its_key_is_and_not_the_key(tmp_path: Path) -> None:
    path = tmp_path / "store.key"
    path.write_bytes(b"0123456789abcdef0123456789abcdef")
    path.chmod(0o600)
    provider = FileKey(path)
    provider.key()
    assert repr(provider) == f"FileKey({str(path)!r})"
    text = base64.b64encode(KEY).decode()
    assert text not in repr(EnvKey("STORE_KEY", {"STORE_KEY": text}))
