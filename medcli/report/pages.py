"""Templates → self-contained HTML."""

from __future__ import annotations

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
