"""What a gallery's folder lies on: a local disk, a network file system, or one without locks.

SQLite's write-ahead log needs memory that all processes share, which machines do not: on a
network file system the catalogue keeps a rollback journal instead. Where locks of one machine
are not seen by another, nothing is written.

References
----------
SQLite, Write-Ahead Logging, "all processes using a database must be on the same host computer".
proc_pid_mountinfo(5). flock(2), "NFS details".
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

Medium = Literal["local", "network", "without locks"]

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "9p", "virtiofs", "afs", "ceph", "lustre"),
    *("gpfs", "beegfs", "glusterfs", "orangefs", "ocfs2", "gfs2"),
}
_WITHOUT_LOCKS = {
    *("davfs", "fuse.davfs", "fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.mount-s3"),
    *("fuse.goofys", "fuse.gcsfuse", "fuse.blobfuse", "fuse.blobfuse2", "fuse.curlftpfs"),
    *("fuse.geesefs", "fuse.gvfsd-fuse"),
}


def medium(folder: Path) -> Medium:
    """What `folder` lies on; one that is not known counts as local.

    Every other FUSE file system but that of a block device counts as a network's: what is
    behind it cannot be told.
    """
    name = file_system(folder) or ""
    if name in _WITHOUT_LOCKS:
        return "without locks"
    return "network" if name in _NETWORK or name.startswith("fuse.") else "local"


def file_system(folder: Path) -> str | None:
    """The type of the file system of `folder` as Linux calls it ("ext4", "nfs4", "fuse.sshfs").

    None where it cannot be told: on other systems, and where /proc is not mounted.
    """
    try:
        lines = _MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    place, best, found = os.path.realpath(folder), -1, None
    for line in lines:
        before, _, after = line.partition(" - ")
        point = _plain(before.split(" ")[4])
        below = place == point or place.startswith(point.rstrip("/") + "/")
        if below and len(point) >= best:  # of two at one place the later covers the earlier
            best, found = len(point), after.split(" ")[0]
    return found


def _plain(escaped: str) -> str:
    r"""A path as mountinfo writes it: a blank is \040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped)
