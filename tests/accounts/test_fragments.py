"""A page that stays open longer than its login."""

import pytest
from django.test import Client

from tests import make

pytestmark = pytest.mark.django_db

HTMX = {"HX-Request": "true", "HX-Current-URL": "http://testserver/projects/alpha/endpoints/?q=x"}


def test_a_fragment_after_the_login_expired_leads_the_page_to_log_in_and_back(client: Client) -> None:
    project = make.project()
    answer = client.get(f"/projects/{project.slug}/endpoints/?part=rows", headers=HTMX)
    assert answer.status_code == 200
    assert answer["HX-Redirect"] == "/login/?next=%2Fprojects%2Falpha%2Fendpoints%2F%3Fq%3Dx"
    assert not answer.content


def test_a_whole_page_is_redirected_as_ever(client: Client) -> None:
    project = make.project()
    answer = client.get(f"/projects/{project.slug}/endpoints/")
    assert answer.status_code == 302
    assert answer["Location"].startswith("/login/?next=")


def test_a_fragment_of_somebody_logged_in_is_left_alone(client: Client) -> None:
    project = make.project()
    client.force_login(make.user("alice"))
    assert "HX-Redirect" not in client.get(f"/projects/{project.slug}/endpoints/?part=rows", headers=HTMX)
