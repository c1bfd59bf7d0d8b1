"""The floor of the topic record: bare primitives in the shape of docs/topics.md, and nothing else.

Suite 1 (AES-128-GCM, SHA-256, Ed25519). Key object, keyed place hash and header prefix are cached; one signature and one
verification a batch; the record is written and read by hand. No policy, no roster, no range checks, no fences, no marks, no metrics, no
typed errors: what a product adds. With --keyed each record has its own key, so that its place hash is made anew on both sides.
Needs cryptography and pynacl. Prints JSON: records per second of CPU time, best of --rounds; every opened record is compared.
"""

# ruff: noqa: B905, E501, PT018, RUF059
# fmt: off

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import time
from hashlib import sha256

import cryptography
import nacl
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair

MARKER = b"\xc3\x01" + bytes.fromhex("28071d7b7735b6ba")
LABEL = b"\x1eMLS 1.0 broker_crypto batch v1"
PLACE_TAG = b"broker_crypto place v1"


def zz(n: int) -> bytes:
    n <<= 1
    if n < 0x80:
        return bytes((n,))
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def unzz(b: bytes, o: int) -> tuple[int, int]:
    c = b[o]
    if c < 0x80:
        return c >> 1, o + 1
    n, shift = c & 0x7F, 7
    while True:
        o += 1
        c = b[o]
        n |= (c & 0x7F) << shift
        if c < 0x80:
            return n >> 1, o + 1
        shift += 7


class Floor:
    """One sender and one reader of one (epoch, leaf, stream, partition)."""

    # tidy: all values of the format, once
    def __init__(self, key: bytes, base_nonce: bytes, seed: bytes, epoch: int, epoch_id: bytes, leaf: int, stream: bytes,
                 place_key: bytes, partition: int, subject: bytes, group_id: bytes) -> None:
        content = len(group_id).to_bytes(4, "big") + group_id
        n = len(content) + 32
        self.label = LABEL + (bytes((n,)) if n < 64 else (0x4000 | n).to_bytes(2, "big")) + content     # SignContent up to the 32 bytes of the root
        self.aead, self.base = AESGCM(key), int.from_bytes(base_nonce, "big")
        self.public, self.secret = crypto_sign_seed_keypair(seed)
        self.where = place_key + PLACE_TAG + partition.to_bytes(4, "big", signed=True) + len(subject).to_bytes(4, "big") + subject
        self.unkeyed = self.place(None)
        self.prefix = MARKER + zz(epoch) + epoch_id + zz(leaf) + stream
        self.senders = {self.prefix[10:]: (self.aead, self.base)}
        self.roots: dict[bytes, bool] = {}
        self.verified = 0

    def place(self, key: bytes | None) -> bytes:
        if key is None:
            return sha256(self.where + bytes(5)).digest()
        return sha256(b"".join((self.where, b"\1", len(key).to_bytes(4, "big"), key))).digest()

    def seal(self, records: list[tuple[bytes | None, bytes]], sequence: int) -> list[bytes]:
        prefix, base, encrypt = self.prefix, self.base, self.aead.encrypt
        parts, level = [], []
        for key, payload in records:
            place = self.unkeyed if key is None else self.place(key)
            header = prefix + zz(sequence) + place[:4] + b"\0"
            aad = header + place
            ciphertext = encrypt((base ^ sequence).to_bytes(12, "big"), payload, aad)
            level.append(sha256(b"\0" + header + ciphertext).digest())
            parts.append((header, ciphertext))
            sequence += 1
        width = 1
        while width < len(level):
            width *= 2
        level += [bytes(32)] * (width - len(level))
        levels = []
        while len(level) > 1:
            levels.append(level)
            level = [sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
        tail = b"\x80\x01" + crypto_sign(self.label + level[0], self.secret)[:64]
        length = zz(32 * len(levels))
        return [b"".join((header, zz(len(ciphertext)), ciphertext, zz(i), length, *[lv[(i >> k) ^ 1] for k, lv in enumerate(levels)], tail))
                for i, (header, ciphertext) in enumerate(parts)]

    def open(self, key: bytes | None, record: bytes) -> bytes:
        if record[:10] != MARKER:
            raise ValueError("marker")
        epoch, o = unzz(record, 10)
        leaf, o = unzz(record, o + 16)
        o += 16
        aead, base = self.senders[record[10:o]]
        sequence, o = unzz(record, o)
        place = self.unkeyed if key is None else self.place(key)
        if record[o:o + 4] != place[:4]:
            raise ValueError("place")
        flags, o = unzz(record, o + 4)
        header = record[:o]
        n, o = unzz(record, o)
        ciphertext = record[o:o + n]
        index, o = unzz(record, o + n)
        n, o = unzz(record, o)
        path = record[o:o + n]
        n, o = unzz(record, o + n)
        signature = record[o:]
        if len(signature) != n:
            raise ValueError("length")
        payload = aead.decrypt((base ^ sequence).to_bytes(12, "big"), ciphertext, header + place)
        node = sha256(b"\0" + header + ciphertext).digest()
        for k in range(0, len(path), 32):
            node = sha256(b"\1" + path[k:k + 32] + node if index & 1 else b"\1" + node + path[k:k + 32]).digest()
            index >>= 1
        seen = b"".join((self.public, node, signature))
        if seen not in self.roots:
            crypto_sign_open(signature + self.label + node, self.public)
            self.verified += 1
            if len(self.roots) >= 4096:
                del self.roots[next(iter(self.roots))]
            self.roots[seen] = True
        return payload


def main() -> None:  # tidy: arguments, rounds and output in one view
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--records", type=int, default=3840, help="a multiple of 64")
    args.add_argument("--payload", type=int, default=1024)
    args.add_argument("--rounds", type=int, default=7)
    args.add_argument("--keyed", action="store_true", help="a record key of 16 bytes each")
    args.add_argument("--seed", type=int, default=1)
    a = args.parse_args()
    rng = random.Random(a.seed)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    records = [(rng.randbytes(16) if a.keyed else None, rng.randbytes(a.payload)) for _ in range(a.records)]
    results = []
    for batch in (1, 8, 64):
        best_seal = best_open = float("inf")
        for _ in range(a.rounds):
            floor = Floor(rng.randbytes(16), rng.randbytes(12), rng.randbytes(32), 7, rng.randbytes(16), 5, rng.randbytes(16),
                          rng.randbytes(32), 0, b"", rng.randbytes(32))
            gc.collect()
            gc.disable()
            start = time.process_time()
            sealed: list[bytes] = []
            for s in range(0, a.records, batch):
                sealed += floor.seal(records[s:s + batch], s)
            best_seal = min(best_seal, time.process_time() - start)
            start = time.process_time()
            opened = [floor.open(key, record) for (key, _), record in zip(records, sealed)]
            best_open = min(best_open, time.process_time() - start)
            gc.enable()
            assert opened == [payload for _, payload in records] and floor.verified == a.records // batch
        results.append({"batch": batch, "seal_per_s": round(a.records / best_seal), "open_per_s": round(a.records / best_open),
                        "overhead_bytes": [min(map(len, sealed)) - a.payload, max(map(len, sealed)) - a.payload]})
    print(json.dumps({"bench": "topic record floor", "suite": 1, "payload": a.payload, "keyed": a.keyed, "records": a.records, "rounds": a.rounds,
                      "python": platform.python_version(), "machine": platform.machine(), "cryptography": cryptography.__version__,
                      "pynacl": nacl.__version__, "results": results}, indent=1))


if __name__ == "__main__":
    main()
