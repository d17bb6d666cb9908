"""Every field of the specification refuses what lies outside its range, at both ends, and says the range."""

from __future__ import annotations

import pytest
from django.utils.html import escape

from accounts.models import Project
from endpoints.validation import Invalid, spec_from
from tests import make
from tests.endpoints.wizard.way import Way

pytestmark = pytest.mark.django_db

Range = tuple[str, str, float, float, str, str]
WHOLE: list[Range] = [
    ("llm", "max_sequence_length", 127, 8193, "128", "8,192"),
    ("llm", "batch_size", 0, 65, "1", "64"),
    ("llm", "top_k", 0, 101, "1", "100"),
    ("scaling", "min_instances", -1, 11, "0", "10"),
    ("scaling", "max_instances", 0, 101, "1", "100"),
    ("scaling", "target_concurrency", 0, 1001, "1", "1,000"),
    ("scaling", "scale_up_threshold", 49, 96, "50", "95"),
    ("scaling", "scale_down_delay", 59, 3601, "60", "3,600"),
    ("scaling", "warm_spare", -1, 11, "0", "10"),
    ("environment", "max_workers", 0, 65, "1", "64"),
]
DECIMAL: list[Range] = [
    ("llm", "temperature", 0.05, 2.1, "0.1", "2"),
    ("llm", "top_p", 0.05, 1.1, "0.1", "1"),
]


def wish(**changes: object) -> dict[str, object]:
    asked = make.spec("wanted").to_dict()
    asked["source"] = {"kind": "registry", "model": "tiny", "version": 1}
    return asked | changes


def errors_of(project: Project, body: object) -> dict[str, list[str]]:
    with pytest.raises(Invalid) as refused:
        spec_from(body, project)  # type: ignore[arg-type]
    return refused.value.errors


@pytest.mark.parametrize(("section", "field", "low", "high", "least", "most"), WHOLE + DECIMAL)
def test_out_of_range_says_the_end_that_was_passed(
    project: Project, section: str, field: str, low: float, high: float, least: str, most: str
) -> None:
    below = errors_of(project, wish(**{section: {field: low}}))
    above = errors_of(project, wish(**{section: {field: high}}))
    assert f"at least {least}" in below[f"{section}.{field}"][0]
    assert f"at most {most}" in above[f"{section}.{field}"][0]


@pytest.mark.parametrize(("section", "field", "low", "high", "least", "most"), WHOLE + DECIMAL)
def test_the_page_says_the_same_as_rest_and_keeps_what_was_typed(
    way: Way, section: str, field: str, low: float, high: float, least: str, most: str
) -> None:
    way.to(section)
    page = way.refused(section, **{field: str(high)})
    said = errors_of(way.draft.project, wish(**{section: {field: high}}))[f"{section}.{field}"][0]
    assert escape(said) in page
    assert f'value="{high}"' in way.see(section)


@pytest.mark.parametrize(("section", "field"), [(section, field) for section, field, *_ in WHOLE + DECIMAL])
@pytest.mark.parametrize("given", ["", "many", "NaN", "1e999", "9" * 4000])
def test_what_is_no_number_is_refused(project: Project, section: str, field: str, given: str) -> None:
    assert f"{section}.{field}" in errors_of(project, wish(**{section: {field: given}}))


@pytest.mark.parametrize(("section", "field", "low", "high", "least", "most"), WHOLE + DECIMAL)
def test_both_ends_themselves_are_taken(
    project: Project, section: str, field: str, low: float, high: float, least: str, most: str
) -> None:
    for end in (least, most):
        value = float(end.replace(",", ""))
        if field == "max_sequence_length":
            value = min(value, 4096)  # what the test's model was trained for
        asked = {field: value} | ({"max_instances": 100} if field in ("min_instances", "warm_spare") else {})
        if field == "max_instances":
            asked["min_instances"] = 1
        made = spec_from(wish(**{section: asked}), project)
        assert getattr(getattr(made, section), field) == value


def test_min_above_max_is_refused_at_its_field(way: Way) -> None:
    way.to("scaling")
    page = way.refused("scaling", min_instances="5", max_instances="3")
    assert "Max instances must not be below min instances; 3 is less than 5." in page
    assert way.fresh().reached == 5


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"llm": {"top_q": 1}}, "llm.top_q"),
        ({"colour": "red"}, "colour"),
        ({"llm": []}, "llm"),
        ({"llm": {"top_k": True}}, "llm.top_k"),
        ({"llm": {"top_k": None}}, "llm.top_k"),
        ({"name": ["a"]}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"environment": {"variables": {"A": 1}}}, "environment.variables"),
        ({"environment": {"variables": {"A": "\ud800"}}}, "environment.variables"),
        ({"source": {"kind": "ftp"}}, "source.kind"),
        ({"source": {"kind": "git"}}, "source.url"),
        ({"region": "moon"}, "region"),
        ({"instance_type": "huge"}, "instance_type"),
        ({"llm": {"quantization": "dynamic"}}, "llm.quantization"),
        ({"llm": {"tokenizer_type": "bpe"}}, "llm.tokenizer_type"),
        ({"llm": {"padding": "left"}}, "llm.padding"),
        ({"llm": {"load_format": "int8"}}, "llm.load_format"),
        ({"llm": {"data_type": "fp4"}}, "llm.data_type"),
        ({"instance_type": "g4dn.xlarge"}, "instance_type"),
    ],
)
def test_what_a_body_may_not_say_is_named(project: Project, body: dict[str, object], field: str) -> None:
    assert field in errors_of(project, wish(**body))


def test_a_body_that_is_no_object_is_refused(project: Project) -> None:
    assert errors_of(project, [1, 2]) == {"": ["The body must be a JSON object."]}


def test_a_body_comes_back_as_the_spec_it_describes(project: Project) -> None:
    asked = wish(environment={"variables": {"MODE": "fast"}}, llm={"temperature": 0.5})
    made = spec_from(asked, project)
    assert made.environment.variables == {"MODE": "fast"}
    assert (made.llm.temperature, made.llm.top_k, made.scaling.max_instances) == (0.5, 50, 10)


@pytest.mark.parametrize("name", ["", "Big", "1st", "-a", "a-", "a b", "new", "é", "a" * 41, "a\nX: y"])
def test_a_name_that_breaks_the_rules_is_refused(project: Project, name: str) -> None:
    assert "name" in errors_of(project, wish(name=name))


def test_the_name_is_judged_while_it_is_typed(way: Way) -> None:
    make.endpoint(way.draft.project, name="gone")
    taken = way.client.get(way.act("draft_name"), {"name": "gone"}).content.decode()
    free = way.client.get(way.act("draft_name"), {"name": "still-free"}).content.decode()
    assert "is taken" in taken
    assert "is free" in free
