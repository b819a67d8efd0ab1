"""How every page is made: one template with the style sheet and the plots inside, and no other file."""

from importlib import resources
from typing import Any

from fedsafe.report import formats


def page(template: str, /, **values: Any) -> str:
    """A self-contained page.

    Args:
        template: Name of a file in ``templates``, which may include others of them.
        **values: What it shows; text is escaped, and an SVG is passed through the filter ``svg``.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("fedsafe.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=formats.number,
        share=formats.share,
        epsilon=formats.epsilon,
        words=formats.status,
        moment=formats.moment,
        svg=Markup,
    )
    css = (resources.files("fedsafe.report") / "templates" / "report.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(css=Markup(css), **values)  # noqa: S704 - our own style sheet
