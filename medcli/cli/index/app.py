"""`medcli index`: the commands in the order in which the help lists them."""

from __future__ import annotations

from typer.core import TyperGroup

from medcli.cli.later import Later

_COMMANDS = {
    "filling": {
        "build": "Make a gallery of scans.",
        "add": "Add scans to a gallery; what it holds already is left alone.",
        "update": "Bring a gallery up to date with its files.",
        "remove": "Remove scans from a gallery; their files are not touched.",
    },
    "looking": {
        "info": "Say what a gallery holds.",
        "export": "Write the vectors and what is known of each scan for other programs.",
        "audit": "Look for twins of two patients, labels or splits, and for what neighbours "
        "follow.",
    },
    "keeping": {
        "verify": "Compare everything in a gallery with its checksums, and some scans with their "
        "files.",
        "repair": "Rebuild what is derived, and damaged rows from their files where that is "
        "proven.",
        "compact": "Give back the space of removed scans, and of what killed builds have left.",
        "forget": "Remove every trace of a patient, and search all bytes of the gallery for what "
        "is left.",
    },
    "choosing": {
        "tune": "Measure an approximate index against exact search, and use it if it finds enough.",
    },
    "migrating": {
        "migrate": "Give a gallery the vectors of another model, made from its files.",
    },
}

app = TyperGroup(
    name="index",
    help="Build and keep a gallery: the searchable archive.",
    no_args_is_help=True,
    commands=[
        Later(name, f"medcli.cli.index.{file}:{name}", line)
        for file, commands in _COMMANDS.items()
        for name, line in commands.items()
    ],
)
