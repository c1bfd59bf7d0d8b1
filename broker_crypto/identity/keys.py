"""Private keys of identities and of the small CA: made, written and read as PKCS#8 PEM (RFC 5958), mode 0600."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from broker_crypto.errors import UsageError
from broker_crypto.identity.ca import PrivateKey, PublicKey

SCHEMES = ("ed25519", "p256")  # of leaves; a CA may also have p384


def generate(scheme: str = "ed25519") -> PrivateKey:
    """A new private key: "ed25519", "p256" or "p384"."""
    if scheme == "ed25519":
        return Ed25519PrivateKey.generate()
    curves: dict[str, ec.EllipticCurve] = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1()}
    if scheme not in curves:
        raise UsageError("a key is ed25519, p256 or p384", scheme=scheme)
    return ec.generate_private_key(curves[scheme])


def scheme_of(key: PrivateKey | PublicKey) -> str:
    """ "ed25519", "p256" or "p384"; UsageError for another curve."""
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        named = {"secp256r1": "p256", "secp384r1": "p384"}.get(key.curve.name)
        if named is None:
            raise UsageError("a key on a curve that is not P-256 or P-384", curve=key.curve.name)
        return named
    return "ed25519"


def raw_private(key: PrivateKey) -> bytes:
    """The key as MLS has it: the Ed25519 seed, or the scalar in as many bytes as the curve's field."""
    if isinstance(key, Ed25519PrivateKey):
        return key.private_bytes_raw()
    return key.private_numbers().private_value.to_bytes(key.curve.key_size // 8, "big")


def raw_public(key: PublicKey) -> bytes:
    """The key as MLS has it: 32 bytes, or an uncompressed point."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return key.public_bytes_raw()


def write(path: Path, key: PrivateKey, *, replace: bool = False) -> None:
    """Write the key, mode 0600. Raises UsageError if the file exists and not `replace`: a key is not written over by chance."""
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), replace=replace)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are missing, for the owner alone (`mkdir(parents=True)` opens them to all)."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def write_private(path: Path, data: bytes, *, replace: bool = False) -> None:
    """Write a file of mode 0600 whole or not at all, its folders made with 0700. UsageError if it exists and not `replace`."""
    make_folder(path.parent)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(fresh, path)
        else:
            os.link(fresh, path)
    except FileExistsError:
        raise UsageError("the file exists; a key is not written over", path=str(path)) from None
    finally:
        fresh.unlink(missing_ok=True)


def read(path: Path) -> PrivateKey:
    """Read a private key (PKCS#8 PEM without a passphrase). Raises UsageError, which never holds a byte of it."""
    try:
        mode, data = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise UsageError(f"the private key cannot be read: {error.strerror}", path=str(path)) from None
    if mode & (stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP):
        raise UsageError(f"the private key is open to others (mode {stat.S_IMODE(mode):04o}); chmod 600 it", path=str(path))
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError("not a private key in PKCS#8 PEM without a passphrase", path=str(path)) from None
    if not isinstance(key, Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        raise UsageError("a private key that is not Ed25519, P-256 or P-384", path=str(path))
    scheme_of(key)
    return key
