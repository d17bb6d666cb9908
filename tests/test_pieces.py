"""The pieces keep their promises: what is wired to what, what stands for no number, what needs no script."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from django import forms
from django.core.paginator import Paginator
from django.template import Context, Engine, engines
from django.template.loader import render_to_string
from django.test import RequestFactory

from endpoints.templatetags import pieces

AT = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def show(piece: str, /, **context: Any) -> str:
    return " ".join(render_to_string(f"pieces/{piece}.html", context).split())


def page(source: str, path: str = "/list/", **context: Any) -> str:
    """`source` as a page of the console would render it at `path`."""
    template = engines["django"].from_string(source)
    return " ".join(template.render(context, RequestFactory().get(path)).split())


class LengthForm(forms.Form):
    length = forms.IntegerField(label="Max sequence length", help_text="128 to 8,192", max_value=8192)
    agree = forms.BooleanField(label="I agree", required=False)
    billing = forms.ChoiceField(choices=[("h", "Per hour")], widget=forms.RadioSelect, help_text="How you pay")
    secret = forms.CharField(widget=forms.HiddenInput, required=False)


# ── status ───────────────────────────────────────────────────────────────────────────────────────
def test_a_status_is_a_word_beside_its_dot() -> None:
    html = show("status_badge", status={"tone": "warn", "label": "Degraded"})
    assert "is-warn" in html
    assert ">Degraded<" in html


def test_a_status_on_its_way_is_marked_and_one_without_tone_is_idle() -> None:
    assert "status-busy" in show("status_badge", label="Loading", busy=True)
    assert "is-idle" in show("status_badge", label="Loading")


# ── fields ───────────────────────────────────────────────────────────────────────────────────────
def test_an_error_is_tied_to_its_control() -> None:
    form = LengthForm({"length": "99999", "billing": "h"})
    html = show("field", field=form["length"], unit="tokens")
    assert 'aria-invalid="true"' in html
    assert 'aria-describedby="id_length_helptext id_length_error"' in html
    assert 'id="id_length_helptext"' in html
    assert 'id="id_length_error"' in html
    assert "8192" in html
    assert "tokens" in html


def test_a_fault_free_field_has_label_and_hint_and_no_error() -> None:
    html = show("field", field=LengthForm()["length"])
    assert '<label for="id_length">Max sequence length</label>' in html
    assert "128 to 8,192" in html
    assert "_error" not in html


def test_a_group_of_choices_is_a_fieldset_with_its_legend() -> None:
    html = show("field", field=LengthForm()["billing"])
    assert html.startswith("<fieldset")
    assert "<legend>Billing</legend>" in html
    assert 'aria-describedby="id_billing_helptext"' in html


def test_a_checkbox_stands_before_its_label_and_a_hidden_field_alone() -> None:
    assert re.search(
        r'<label class="check" for="id_agree"><input type="checkbox"', show("field", field=LengthForm()["agree"])
    )
    assert show("field", field=LengthForm()["secret"]) == '<input type="hidden" name="secret" id="id_secret">'


def test_the_list_of_errors_links_to_each_field() -> None:
    form = LengthForm({"length": "99999", "billing": "h"})
    html = show("form_errors", form=form)
    assert 'href="#id_length"' in html
    assert 'role="alert"' in html
    assert show("form_errors", form=LengthForm({"length": "200", "billing": "h"})) == ""


def test_user_text_is_never_markup() -> None:
    html = show("choice_card", name="m", value='"><script>', title="<script>x</script>", facts=["<b>"])
    assert "<script>" not in html
    assert "<b>" not in html


# ── choices and steps ────────────────────────────────────────────────────────────────────────────
def test_what_cannot_be_chosen_says_why_and_can_be_reached() -> None:
    html = show("choice_card", name="machine", value="g4dn", title="g4dn", reason="No GPU here.", checked=True)
    assert 'aria-disabled="true"' in html
    assert 'aria-describedby="id_machine_g4dn_reason"' in html
    assert 'id="id_machine_g4dn_reason"' in html
    assert "No GPU here." in html
    assert " disabled" not in html
    assert " checked" not in html


def test_only_reached_steps_are_links() -> None:
    steps = [
        {"label": "Basics", "url": "/basics/", "state": "done", "reached": True},
        {"label": "Machine", "url": "/machine/", "state": "current", "reached": True},
        {"label": "Summary", "url": "/summary/", "state": "todo", "reached": False},
    ]
    html = show("stepper", steps=steps)
    assert 'href="/basics/"' in html
    assert 'href="/summary/"' not in html
    assert html.count('aria-current="step"') == 1
    assert ", done" in html


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────
def test_a_tile_shows_zero_as_zero_and_absence_in_words() -> None:
    zero = show("kpi_tile", label="Error rate", value=0, unit="%")
    absent = show("kpi_tile", label="GPU", absent="Not measured here: no GPU")
    assert "<span>0</span>" in zero
    assert "Not measured here: no GPU" in absent
    assert "tile-absent" in absent
    assert "tile-absent" not in zero


def test_a_live_tile_names_its_path_and_format() -> None:
    html = show("kpi_tile", label="p95", value="847", unit="ms", tick="tiles.p95")
    assert 'data-tick="tiles.p95"' in html
    assert 'data-format="bare"' in html


def test_a_sparkline_breaks_where_nothing_was_measured() -> None:
    assert pieces.sparkline([1.0, 2.0, None, 4.0, 3.0]).count("M") == 2
    assert pieces.sparkline([1.0]) == ""
    assert pieces.sparkline([None, None]) == ""


def test_a_level_sparkline_lies_in_the_middle() -> None:
    assert pieces.sparkline([5.0, 5.0]) == "M0.0 12.0L100.0 12.0"


def test_a_sparkline_stays_in_its_box() -> None:
    heights = [float(h) for h in re.findall(r"\d (\d+\.\d)", pieces.sparkline([0, 1e9, -1e9, 3]))]
    assert min(heights) >= 0
    assert max(heights) <= pieces.HEIGHT


def test_parts_are_shares_of_the_capacity() -> None:
    parts = pieces.stacked([{"label": "Weights", "bytes": 25}, {"label": "KV", "bytes": 50}], 100)
    assert [(part["left"], part["width"]) for part in parts] == [("0.00%", "25.00%"), ("25.00%", "50.00%")]


def test_parts_beyond_the_capacity_fill_the_bar_and_no_more() -> None:
    parts = pieces.stacked([{"label": "Weights", "bytes": 300}, {"label": "KV", "bytes": None}], 100)
    assert [part["width"] for part in parts] == ["100.00%", "0.00%"]


def test_progress_without_a_total_has_no_end() -> None:
    assert "max=" not in show("progress", done=1024, label="Loaded")
    known = show("progress", done=1024, total=4096, seconds_left=9)
    assert 'max="4096" value="1024"' in known
    assert "1 KiB of 4 KiB" in known
    assert "9 s left" in known


# ── tables ───────────────────────────────────────────────────────────────────────────────────────
def test_sorting_is_in_the_address_and_keeps_the_rest_of_it() -> None:
    html = page('{% column "Name" sort="name" %}', "/list/?q=chat&page=3&sort=name")
    assert 'href="?q=chat&amp;sort=-name"' in html
    assert 'aria-sort="ascending"' in html


def test_an_unsorted_column_sorts_upward_first() -> None:
    html = page('{% column "Name" sort="name" %}', "/list/")
    assert 'href="?sort=name"' in html
    assert "aria-sort" not in html


def test_an_empty_table_teaches_the_next_step() -> None:
    html = page(
        '{% piece "data_table" label="Models" rows=rows empty_title="No models yet" empty_command="do it" %}'
        "<tbody></tbody>{% endpiece %}",
        rows=[],
    )
    assert "<table" not in html
    assert "No models yet" in html
    assert 'data-copy="do it"' in html


def test_the_pager_keeps_the_filter() -> None:
    second = Paginator(range(100), 25).page(2)
    source = '{% piece "data_table" label="Rows" rows=rows page=rows %}<tbody></tbody>{% endpiece %}'
    html = page(source, "/list/?q=x&page=2", rows=second)
    assert "26–50 of 100" in html
    assert 'href="?q=x&amp;page=1"' in html
    assert 'href="?q=x&amp;page=3"' in html


def test_tabs_are_in_the_address_and_the_first_needs_none() -> None:
    source = '{% tab "Overview" "overview" default=True %}{% tab "Logs" "logs" count=0 %}'
    bare, logs = page(source, "/e/"), page(source, "/e/?tab=logs")
    assert '<a href="/e/" aria-current="page">Overview' in bare
    assert '<a href="/e/?tab=logs" aria-current="page">Logs' in logs
    assert ">0<" in logs


# ── slots and dialogs ────────────────────────────────────────────────────────────────────────────
def test_a_piece_sees_its_values_and_nothing_else_of_the_page() -> None:
    html = page('{% piece "banner" tone="warn" %}<em>{{ title }}</em>{% endpiece %}', title="Secret of the page")
    assert html.count("Secret of the page") == 1


def test_a_deletion_asks_for_the_name_and_posts_with_its_guard() -> None:
    source = (
        '{% piece "confirm_dialog" id="delete" title="Delete?" action="/x/delete/" typed="chat" verb="delete" %}'
        "Gone.{% endpiece %}"
    )
    html = page(source)
    assert re.search(r'name="csrfmiddlewaretoken" value="\w{64}"', html)
    assert 'method="post" action="/x/delete/" data-verb="delete"' in html
    assert 'required pattern="chat"' in html


@pytest.mark.parametrize("state", ["done", "current", "failed", "waiting", "skipped"])
def test_a_phase_says_its_state_in_words(state: str) -> None:
    phase: Mapping[str, Any] = {"label": "Loading", "state": state, "seconds": 134.0, "started_at": AT}
    html = show("timeline", phases=[phase])
    assert f", {state}</span>" in html
    assert ("2 m 14 s" in html) == (state != "skipped")


def test_a_failed_phase_shows_reason_and_last_lines() -> None:
    phase = {
        "label": "Loading",
        "state": "failed",
        "message": "Exit code 137",
        "reason": "out_of_memory",
        "lines": ["killed"],
    }
    html = show("timeline", phases=[phase])
    assert "Exit code 137" in html
    assert "<code>out_of_memory</code>" in html
    assert "killed" in html


def test_a_chart_carries_its_figure_as_data_that_cannot_break_out() -> None:
    html = show("chart_card", id="latency", title="Latency", figure={"data": [{"name": "</script><b>"}]})
    assert "</script><b>" not in html
    assert 'type="application/json"' in html


def test_log_lines_stand_in_the_page_without_any_script() -> None:
    lines = [{"seq": 7, "at": AT, "stream": "stderr", "text": "<oops>"}]
    html = show("log_viewer", id="logs", lines=lines, url="/logs/")
    assert 'data-seq="7"' in html
    assert "&lt;oops&gt;" in html


@pytest.mark.parametrize("name", ["500.html", "503.html"])
def test_the_pages_of_last_resort_need_nothing(name: str) -> None:
    html = Engine.get_default().get_template(name).render(Context())
    assert "endpoints go on serving" in html


def test_the_theme_of_the_cookie_is_painted_at_once_and_no_other_value_is() -> None:
    def painted(theme: str) -> str:
        request = RequestFactory().get("/")
        request.COOKIES["theme"] = theme
        return str(Engine.get_default().get_template("auth.html").render(Context({"request": request})))

    assert 'data-theme="dark"' in painted("dark")
    assert "data-theme=" not in painted('x" onload="y').split("<body")[0]
