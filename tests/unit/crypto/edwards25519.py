"""Plain arithmetic on edwards25519 (RFC 8032 section 5.1), slow and without secrets: to build what a signer never would."""

from __future__ import annotations

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P

Point = tuple[int, int]
IDENTITY: Point = (0, 1)


def recover_x(y: int, sign: int) -> int | None:
    """The x of this parity, None where y is on no point."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P:
        return None
    return P - x if x and x & 1 != sign else x


def add(a: Point, b: Point) -> Point:
    k = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + k, -1, P) % P
    return x, (a[1] * b[1] + a[0] * b[0]) * pow(1 - k, -1, P) % P


def multiply(n: int, point: Point) -> Point:
    result = IDENTITY
    while n:
        if n & 1:
            result = add(result, point)
        point, n = add(point, point), n >> 1
    return result


def encode(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


_BASE_Y = 4 * pow(5, -1, P) % P
BASE: Point = (recover_x(_BASE_Y, 0) or 0, _BASE_Y)


def torsion() -> list[Point]:
    """The eight points of small order."""
    y = 2
    while True:
        x = recover_x(y, 0)
        generator = multiply(L, (x, y)) if x is not None else IDENTITY
        points = [multiply(n, generator) for n in range(8)]
        if len(set(points)) == 8:
            return points
        y += 1


def challenge(r: bytes, public: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % L


def sign(secret: int, public: bytes, r_point: Point, r_secret: int, message: bytes) -> bytes:
    """A signature whose s fits R = r_secret * B and A = secret * B, whatever is really written as R and A."""
    r = encode(r_point)
    s = (r_secret + challenge(r, public, message) * secret) % L
    return r + s.to_bytes(32, "little")
