"""The real thing once: every process, from an empty folder, and a second time."""

import httpx

from tests.up.house import House


def test_the_whole_console_starts_twice_and_a_key_made_beside_it_works(house: House) -> None:
    house.start("manage.py", "up", "--no-input")
    house.wait_ready()
    assert house.healthy(house.console)
    assert house.healthy(house.gateway)
    made = house.run("manage.py", "create_api_key", "--project", "demo", "--scope", "manage")
    assert made.returncode == 0, made.stderr
    answer = httpx.get(
        f"http://127.0.0.1:{house.console}/api/v1/endpoints",
        headers={"Authorization": f"Bearer {made.stdout.strip()}"},
        trust_env=False,
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    assert house.end() == 0, house.said

    house.start("manage.py", "up", "--no-input")
    house.wait_ready()
    assert house.healthy(house.console)
    assert house.healthy(house.gateway)
    login = next(line for line in house.said.splitlines() if line.startswith("Log in")).split()[2]
    assert httpx.get(login, trust_env=False, timeout=60).status_code == 200
