"""The checksum of an object that was uploaded in parts, where it is that of the whole.

CRC64NVME is always the whole object's, never a digest of the parts' digests
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html); ministack takes every
algorithm for the latter.
"""

import base64
import sys

from ministack.services import s3

BITS = 64
composite = s3._composite_checksum


def shifted(crc, zeros):
    """The remainder of what `crc` is one of, with so many zero bytes behind it: by squares of the matrix of one zero bit."""
    def times(matrix, vector):
        total, row = 0, 0
        while vector:
            if vector & 1:
                total ^= matrix[row]
            vector >>= 1
            row += 1
        return total

    matrix, bits = [s3._CRC64NVME_POLY, *(1 << bit for bit in range(BITS - 1))], zeros * 8
    while bits:
        if bits & 1:
            crc = times(matrix, crc)
        matrix, bits = [times(matrix, row) for row in matrix], bits >> 1
    return crc


def checksum(algorithm, digests):
    """What S3 gives for CRC64NVME: the checksum of the parts' contents, one behind the other."""
    if algorithm != "CRC64NVME" or not digests or not all(digests):
        return composite(algorithm, digests)
    # Who asks has the parts, and does not hand on their sizes.
    parts = sys._getframe(1).f_locals["combined_parts"]
    total = 0
    for digest, part in zip(digests, parts, strict=True):
        total = shifted(total, len(part)) ^ int.from_bytes(base64.b64decode(digest), "big")
    return base64.b64encode(total.to_bytes(8, "big")).decode()


s3._composite_checksum = checksum
