"""Cipher suites, HPKE, KDF, signatures, AEAD, Secret: all cryptography of the engines, sans I/O.

Randomness is always an argument. Functions of `Suite` take and give raw bytes; what lives long is a `Secret`.
"""

from cryptography.exceptions import InvalidTag

from broker_crypto.crypto.aead import AuthenticationFailed, Cipher
from broker_crypto.crypto.secret import Secret
from broker_crypto.crypto.suites import Suite, sign_content, suite

__all__ = ["AuthenticationFailed", "Cipher", "InvalidTag", "Secret", "Suite", "sign_content", "suite"]
