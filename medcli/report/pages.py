"""Templates → self-contained HTML."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any


def render(template: str, **context: Any) -> str:
    """The page `template` of this package's templates/, filled and escaped.

    Every value is escaped, and one that a template asks for and `context` lacks is
    an error. The page forbids itself any request (Content-Security-Policy).
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medcli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(context)


def script(name: str) -> dict[str, str]:
    """A script of this package's templates/ for `render`, and the hash a page allows it by.

    Every other script in the page, one that came in with a text included, does not run.

    References
    ----------
    W3C, Content Security Policy Level 3, 2.3.1 hash-source
    """
    text = resources.files("medcli.report").joinpath("templates", name).read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return {"script": text, "script_hash": f"sha256-{digest}"}
