"""Every pair of colours that meets on a page is legible, in both themes, also for colour-blind people."""

import math
import re
from itertools import combinations
from pathlib import Path

import pytest

CSS = Path(__file__).parents[1] / "static" / "css" / "console.css"
THEMES = ("light", "dark")
TONES = ("ok", "warn", "bad", "idle")
SURFACES = ("surface-1", "surface-2", "surface-3")
SERIES = tuple(f"series-{place}" for place in range(1, 9))
RGB = tuple[float, float, float]

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
BLINDNESS = {
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def tokens() -> dict[str, dict[str, str]]:
    found = re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);", CSS.read_text())
    return {name: {"light": light, "dark": dark} for name, light, dark in found}


TOKENS = tokens()


def linear(colour: str) -> RGB:
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return (_linear(red), _linear(green), _linear(blue))


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def contrast(one: str, other: str) -> float:
    """WCAG 2: (lighter + 0.05) / (darker + 0.05) of the relative luminances."""
    lights = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (linear(one), linear(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def lab(colour: RGB) -> RGB:
    red, green, blue = (min(1.0, max(0.0, part)) for part in colour)
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.95047
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.08883
    fx, fy, fz = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in (x, y, z))
    return (116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz))


def seen_by(kind: str, colour: str) -> RGB:
    red, green, blue = linear(colour)
    return tuple(a * red + b * green + c * blue for a, b, c in BLINDNESS[kind])  # type: ignore[return-value]


def apart(one: RGB, other: RGB) -> float:
    """CIE 1976 colour difference."""
    return math.dist(lab(one), lab(other))


def test_every_colour_has_a_light_and_a_dark_value() -> None:
    single = re.findall(r"--(?!shadow)[\w-]+: #", CSS.read_text().split("/* Base */")[0])
    assert single == []
    assert {*SERIES, *SURFACES, *TONES, "accent", "border"} <= set(TOKENS)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("text", ["text-1", "text-2", "text-3"])
def test_text_is_legible_on_every_surface(theme: str, surface: str, text: str) -> None:
    assert contrast(TOKENS[text][theme], TOKENS[surface][theme]) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("tone", TONES)
def test_a_tone_is_legible_as_a_word_on_surfaces_and_on_its_own_ground(theme: str, tone: str) -> None:
    for ground in ("surface-1", "surface-2", f"{tone}-soft"):
        assert contrast(TOKENS[tone][theme], TOKENS[ground][theme]) >= 4.5, ground
    assert contrast(TOKENS["text-1"][theme], TOKENS[f"{tone}-soft"][theme]) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        ("accent", "surface-1"),
        ("accent", "surface-2"),
        ("on-accent", "accent"),
        ("on-accent", "accent-strong"),
        ("accent-strong", "accent-soft"),
        ("text-2", "accent-soft"),
        ("on-danger", "danger"),
    ],
)
def test_links_and_buttons_are_legible(theme: str, text: str, ground: str) -> None:
    assert contrast(TOKENS[text][theme], TOKENS[ground][theme]) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("surface", ["surface-1", "surface-2"])
def test_the_edge_of_a_control_can_be_seen(theme: str, surface: str) -> None:
    assert contrast(TOKENS["border-strong"][theme], TOKENS[surface][theme]) >= 3


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("series", SERIES)
def test_a_line_stands_out_from_the_chart(theme: str, series: str) -> None:
    assert contrast(TOKENS[series][theme], TOKENS["surface-2"][theme]) >= 3


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("kind", BLINDNESS)
def test_colour_blind_people_tell_lines_of_one_kind_apart(theme: str, kind: str) -> None:
    """The first four are solid and the last four dashed, so each needs to differ from its own kind."""
    for group in (SERIES[:4], SERIES[4:]):
        for one, other in combinations(group, 2):
            far = apart(seen_by(kind, TOKENS[one][theme]), seen_by(kind, TOKENS[other][theme]))
            assert far >= 12, f"{one} and {other}: {far:.1f}"


@pytest.mark.parametrize("theme", THEMES)
def test_all_eight_series_differ(theme: str) -> None:
    for one, other in combinations(SERIES, 2):
        assert apart(linear(TOKENS[one][theme]), linear(TOKENS[other][theme])) >= 18, f"{one}, {other}"


def test_the_pages_own_css_and_scripts_stay_small() -> None:
    static = CSS.parents[1]
    own = [*CSS.parent.glob("*.css"), *(static / "js").glob("*.js")]
    assert sum(path.stat().st_size for path in own) <= 150_000


def test_no_page_carries_inline_style_or_script() -> None:
    """The content policy would drop them without a word."""
    bad = re.compile(r'\sstyle="|\son[a-z]+="|<script(?![^>]*(?:src=|application/json))')
    templates = CSS.parents[2] / "templates"
    guilty = [path.name for path in templates.rglob("*.html") if bad.search(path.read_text())]
    assert guilty == []


def test_every_icon_a_template_names_is_in_the_sprite() -> None:
    root = CSS.parents[2]
    there = set(re.findall(r'<symbol id="([\w-]+)"', (root / "static" / "icons.svg").read_text()))
    named = {
        name
        for path in (root / "templates").rglob("*.html")
        for name in re.findall(r'{% icon "([\w-]+)"', path.read_text())
    }
    assert named <= there, named - there
