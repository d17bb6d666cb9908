"""Tags that put the pieces of templates/pieces/ together.

{% icon "name" %}                              an icon of static/icons.svg
{% piece "name" key=value … %}…{% endpiece %}  a piece with a slot: what stands between is its `content`
{% column "Label" sort="field" numeric=True %} a table head, sorted through ?sort= in the URL
{% tab "Label" "value" %}                      a tab link through ?tab= in the URL
"""

from collections.abc import Iterable, Sequence
from typing import Any

from django import template
from django.http import HttpRequest
from django.template import Context
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

WIDTH, HEIGHT = 100.0, 24.0


def _request(context: Context) -> HttpRequest | None:
    return context.get("request") or getattr(context, "request", None)


@register.simple_tag
def icon(name: str) -> SafeString:
    return format_html('<svg class="icon" aria-hidden="true"><use href="{}#{}"/></svg>', static("icons.svg"), name)


@register.simple_block_tag(takes_context=True)
def piece(context: Context, content: str, name: str, **values: Any) -> SafeString:
    """Render pieces/<name>.html with `values` and the slot as `content`; nothing else of the page leaks in."""
    engine = context.template.engine  # type: ignore[union-attr]
    inner = context.new(values | {"content": content if content.strip() else ""})
    inner["csrf_token"] = context.get("csrf_token")
    inner["request"] = _request(context)
    return engine.get_template(f"pieces/{name}.html").render(inner)


@register.simple_tag(takes_context=True)
def link_with(context: Context, **changes: str | int | None) -> str:
    """This page's address with some of its query changed; a value of None leaves that one out."""
    request = _request(context)
    query = request.GET.copy() if request else None
    if query is None:
        return "?"
    for key, value in changes.items():
        query.pop(key, None)
        if value is not None:
            query[key] = str(value)
    return f"?{query.urlencode()}"


@register.inclusion_tag("pieces/column.html", takes_context=True)
def column(
    context: Context,
    label: str,
    *,
    sort: str = "",
    numeric: bool = False,
    hint: str = "",
    hidden: bool = False,
    wide: bool = False,
) -> dict[str, Any]:
    """`hidden`: its label is for screen readers; `wide`: the column is left out on a phone."""
    request = _request(context)
    current = request.GET.get("sort", "") if request else ""
    state = {sort: "ascending", f"-{sort}": "descending"}.get(current, "") if sort else ""
    following = f"-{sort}" if state == "ascending" else sort
    url = link_with(context, sort=following, page=None) if sort else ""
    shown = {"label": label, "numeric": numeric, "hint": hint, "hidden": hidden, "wide": wide}
    return shown | {"url": url, "state": state}


@register.inclusion_tag("pieces/tab.html", takes_context=True)
def tab(
    context: Context,
    label: str,
    value: str,
    *,
    param: str = "tab",
    default: bool = False,
    count: int | None = None,
) -> dict[str, Any]:
    """One tab; `default` marks the one that shows when the URL names none.

    A page that answers a form under another address says in its context which tab it shows, as `tab`, and where
    its tabs lead, as `tabs_url`.
    """
    request = _request(context)
    chosen = request.GET.get(param, "") if request else ""
    path = request.path if request else ""
    if "tabs_url" in context:
        chosen, path = context["tab"], context["tabs_url"]
    url = f"{path}?{param}={value}" if not default else path or "?"
    return {"label": label, "url": url, "count": count, "current": chosen == value or (default and not chosen)}


@register.filter
def sparkline(points: Sequence[float | None]) -> str:
    """An SVG path through the points in a box of 100 by 24; an unmeasured point breaks the line."""
    known = [point for point in points if point is not None]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    span, step, path, pen = (high - low) or 1.0, WIDTH / (len(points) - 1), [], "M"
    for place, point in enumerate(points):
        if point is None:
            pen = "M"
            continue
        height = HEIGHT / 2 if high == low else HEIGHT - 1 - (point - low) / span * (HEIGHT - 2)
        path.append(f"{pen}{place * step:.1f} {height:.1f}")
        pen = "L"
    return "".join(path)


@register.filter
def stacked(parts: Iterable[dict[str, Any]], capacity: float | None) -> list[dict[str, Any]]:
    """Each part ({"label", "bytes"}) with its left edge and width in percent of the larger of sum and capacity."""
    rows = list(parts)
    whole = max(sum(row["bytes"] or 0 for row in rows), capacity or 0) or 1
    left, out = 0.0, []
    for place, row in enumerate(rows, start=1):
        width = (row["bytes"] or 0) / whole * 100
        out.append(row | {"left": f"{left:.2f}%", "width": f"{width:.2f}%", "series": place})
        left += width
    return out


@register.filter
def share(part: float | None, whole: float | None) -> str:
    """`part` in percent of `whole`, for an SVG attribute."""
    return f"{min(100.0, (part or 0) / whole * 100):.2f}%" if whole else "0%"
