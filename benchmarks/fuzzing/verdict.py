"""How damaged files ended, and whether that is well.

A cut must be called `truncated` or `crc`, with one exception: the preamble of a DICOM file
may hold anything (PS3.10 7.1), so what is left of a file that ends within one that is not
blank, and has no name that tells, can be any file. Such are counted by themselves. A mutant
that reads as the very pixels of its original has lost nothing: it was cut in padding
behind the pixels, and is no case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SLOW = 10.0
NAMED = ("truncated", "crc")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one input ended.

    Parameters
    ----------
    original : SHA-256 of the pixels of the sound file, "" where there is none
    pixels : of what was read, "" where it was not
    code : "ok", or a code of docs/codes.md; "unaccounted" where there was no answer
    seconds : since the answer before
    is_nameless : cut so early that no byte tells the format, and neither does the name
    """

    name: str
    kind: str
    original: str
    code: str = "unaccounted"
    pixels: str = ""
    seconds: float = 0.0
    is_nameless: bool = False

    @property
    def is_silent_loss(self) -> bool:
        """Whether it was read without a word although its pixels are not the original's."""
        return self.code == "ok" and self.pixels != self.original

    @property
    def must_be_noticed(self) -> bool:
        """Whether the file was cut, or damaged where a checksum tells."""
        checksum = self.name.endswith((".png", ".nii.gz"))
        return bool(self.original) and (self.kind == "cut" or checksum)


def summarise(name: str, peaks: Sequence[dict], ended: Sequence[Outcome]) -> bool:
    """Print what became of the inputs; whether nothing went wrong."""
    codes = Counter(each.code for each in ended)
    died = sum(peak.get("died", 0) for peak in peaks)
    slow = [each for each in ended if each.seconds > SLOW]
    damaged = [e for e in ended if e.must_be_noticed and (e.code != "ok" or e.is_silent_loss)]
    silent = [each for each in damaged if each.is_silent_loss]
    nameless = [each for each in damaged if each.is_nameless]
    cut = [e for e in damaged if e.kind == "cut" and e.code != "ok" and not e.is_nameless]
    named = sum(each.code in NAMED for each in cut)
    share_named = named / max(1, len(cut))
    print(f"\n{name}: {len(ended):,} inputs, {dict(codes.most_common())}")
    print(
        f"  deaths of the process {died}, unaccounted {codes['unaccounted']}, over 10 s {len(slow)}"
    )
    for who in ("process", "workers"):
        print(f"  peak memory of {who}: {max(p.get(who, 0) for p in peaks) / 1024:.0f} MiB")
    if damaged:
        share = 1 - len(silent) / len(damaged)
        print(f"  cut, or damaged under a checksum: {len(damaged):,}, noticed {share:.2%}")
        print(f"  of {len(cut):,} cut ones {share_named:.2%} are called truncated or crc")
        others = Counter(each.code for each in cut if each.code not in NAMED)
        print(f"  the others: {dict(others)}")
        unknown = Counter(each.code for each in nameless)
        print(f"  cut within a preamble that is not blank, without a name: {dict(unknown)}")
    for each in (*slow, *silent):
        print(f"  {Path(each.name).name} {each.kind}: {each.code}, {each.seconds:.1f} s")
    return not (died or codes["unaccounted"] or slow or silent or len(cut) > named)
