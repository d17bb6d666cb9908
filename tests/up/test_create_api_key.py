"""`manage.py create_api_key` is for scripts: one key on standard output, or one line of error."""

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.models import ApiKey
from tests import make

pytestmark = pytest.mark.django_db


def created(*arguments: str) -> str:
    out = StringIO()
    call_command("create_api_key", *arguments, stdout=out)
    return out.getvalue()


def test_prints_one_key_that_works_and_nothing_else() -> None:
    project = make.project("Alpha")
    said = created("--project", "alpha", "--scope", "manage", "--scope", "inference", "--name", "robot")
    assert said.count("\n") == 1
    key = ApiKey.objects.matching(said.strip(), timezone.now())
    assert key
    assert (key.project, key.name, key.scopes) == (project, "robot", ["inference", "manage"])


def test_a_key_with_an_end_ends() -> None:
    make.project("Alpha")
    secret = created("--project", "alpha", "--scope", "inference", "--expires-in-days", "2").strip()
    now = timezone.now()
    assert ApiKey.objects.matching(secret, now + timedelta(days=1, hours=23))
    assert not ApiKey.objects.matching(secret, now + timedelta(days=2, minutes=1))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--project", "beta", "--scope", "manage"), "No project is called 'beta'. There are: alpha."),
        (("--project", "alpha", "--scope", "all"), "No scope is called 'all'. There are: inference, manage."),
        (
            ("--project", "alpha", "--scope", "manage", "--expires-in-days", "0"),
            "--expires-in-days must be 1 or more.",
        ),
    ],
)
def test_a_wrong_wish_is_one_clear_line_and_makes_no_key(arguments: tuple[str, ...], complaint: str) -> None:
    make.project("Alpha")
    with pytest.raises(CommandError) as raised:
        created(*arguments)
    assert str(raised.value) == complaint
    assert not ApiKey.objects.exists()
