"""Compares two folders of shards with the same keys. Prints a line of JSON. Run by `scripts/bench/ingest`.

ingest_compare.py OURS THEIRS EVERY    decodes one of EVERY pictures for the signal-to-noise ratio
"""

import json
import sys
import tarfile
from pathlib import Path

import cv2
import numpy

# For pictures that are equal.
MOST_DECIBELS = 99.0


def size(jpeg):
    """Width and height, by the frame header."""
    place = 2
    while jpeg[place] == 0xFF:
        kind, length = jpeg[place + 1], int.from_bytes(jpeg[place + 2 : place + 4], "big")
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(jpeg[place + 7 : place + 9], "big"), int.from_bytes(jpeg[place + 5 : place + 7], "big")
        place += 2 + length
    raise ValueError("a JPEG without a frame")


def read(folder):
    """Members of all samples by key and extension."""
    samples = {}
    for path in sorted(Path(folder).glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, extension = member.name.split(".", 1)
                samples.setdefault(key, {})[extension] = tar.extractfile(member).read()
    return samples


def decibels(first, second):
    pixels = [cv2.imdecode(numpy.frombuffer(jpeg, numpy.uint8), cv2.IMREAD_COLOR).astype(float) for jpeg in (first, second)]
    error = numpy.mean((pixels[0] - pixels[1]) ** 2)
    return MOST_DECIBELS if error == 0 else min(MOST_DECIBELS, 10 * numpy.log10(255**2 / error))


def main():
    ours, theirs, every = read(sys.argv[1]), read(sys.argv[2]), int(sys.argv[3])
    both = sorted(ours.keys() & theirs.keys())
    same = lambda what: sum(what(ours[key]) == what(theirs[key]) for key in both)
    ratios = [decibels(ours[key]["jpg"], theirs[key]["jpg"]) for key in both[::every]]
    mean_bytes = lambda samples: sum(len(sample["jpg"]) for sample in samples.values()) // max(1, len(samples))
    print(json.dumps({
        "ours": len(ours), "theirs": len(theirs), "both": len(both),
        "same_captions": same(lambda sample: sample["txt"]), "same_sizes": same(lambda sample: size(sample["jpg"])),
        "mean_decibels": sum(ratios) / len(ratios), "least_decibels": min(ratios), "decoded": len(ratios),
        "mean_bytes": [mean_bytes(ours), mean_bytes(theirs)],
    }))


if __name__ == "__main__":
    main()
