"""How every page is made: one template with the style sheet and the plots inside, and no other file."""

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from fedsafe.report import formats

if TYPE_CHECKING:
    from jinja2 import Environment


def page(template: str, /, **values: Any) -> str:
    """A self-contained page.

    Args:
        template: Name of a file in ``templates``, which may include others of them.
        **values: What it shows; text is escaped, and an SVG is passed through the filter ``svg``.
    """
    from markupsafe import Markup

    css = (resources.files("fedsafe.report") / "templates" / "report.css").read_text(encoding="utf-8")
    css = Markup(css)  # noqa: S704 - our own style sheet
    return _environment().get_template(template).render(css=css, **values)


@cache
def _environment() -> "Environment":
    """One for all pages, which compiles each template once."""
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
    return environment
