"""Signs a wrong answer as a helper: adds 1 to one lane of an answer of `fedmill secagg help`.

    lie.py KEY ANSWER LANE

Written from docs/secure.md alone, with the reference code of RFC 8032, section 6. Needs the package blake3.
"""

import hashlib
import json
import struct
import sys

from blake3 import blake3

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def add(one, other):
    a = (one[1] - one[0]) * (other[1] - other[0]) % P
    b = (one[1] + one[0]) * (other[1] + other[0]) % P
    c = 2 * one[3] * other[3] * D % P
    d = 2 * one[2] * other[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(number, point):
    result = (0, 1, 1, 0)
    while number > 0:
        if number & 1:
            result = add(result, point)
        point = add(point, point)
        number >>= 1
    return result


def base_point():
    y = 4 * pow(5, P - 2, P) % P
    squared = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(squared, (P + 3) // 8, P)
    if (x * x - squared) % P != 0:
        x = x * pow(2, (P - 1) // 4, P) % P
    x = P - x if x & 1 else x
    return x, y, 1, x * y % P


BASE = base_point()


def compressed(point):
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def number_of(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % ORDER


def sign(secret, message):
    digest = hashlib.sha512(secret).digest()
    scalar = int.from_bytes(digest[:32], "little")
    scalar = scalar & ((1 << 254) - 8) | 1 << 254
    public = compressed(times(scalar, BASE))
    nonce = number_of(digest[32:], message)
    point = compressed(times(nonce, BASE))
    challenge = number_of(point, public, message)
    return point + ((nonce + challenge * scalar) % ORDER).to_bytes(32, "little")


def main():
    key, answer, lane = sys.argv[1], sys.argv[2], int(sys.argv[3])
    secret = open(key, "rb").read()[:32]
    signing = blake3(secret, derive_key_context="fedmill-secagg/1 signing key").digest()
    whole = bytearray(open(answer, "rb").read())
    behind = 8 + struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8:behind])
    start, end = (behind + offset for offset in header["lanes"]["data_offsets"])
    value = struct.unpack_from("<I", whole, start + 4 * lane)[0]
    struct.pack_into("<I", whole, start + 4 * lane, (value + 1) % (2**32 - 5))
    proof = blake3(bytes(whole[start:end])).digest()
    message = b"fedmill-secagg/1 help\n" + bytes(whole[:behind]) + proof
    whole[end:] = proof + sign(signing, message)
    open(answer, "wb").write(whole)


main()
