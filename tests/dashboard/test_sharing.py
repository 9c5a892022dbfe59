from tests.dashboard.conftest import Client
from tests.dashboard.test_administering import ADMIN


async def _links(client: Client, user: str) -> dict[str, str]:
    asked = {"user": user, "days": 30}
    made = await client.post("/api/admin/links", json=asked, headers=ADMIN)
    assert made.status == 201
    links = await made.json()
    origin = str(client.make_url("/")).rstrip("/")
    return {name: links[name].removeprefix(origin) for name in ("page", "json")}


async def test_a_link_opens_the_numbers_of_its_user_alone(client: Client) -> None:
    """Without an account, as JSON and as a page that can stand in another one."""
    links = await _links(client, "ada")
    found = await (await client.get(links["json"])).json()
    assert found["totals"]["calls"] == 2
    assert [row["endpoint"] for row in found["tables"]["endpoints"]["rows"]] == ["analyze_homework"]
    page = await client.get(links["page"])
    assert page.status == 200
    assert "frame-ancestors *" in page.headers["Content-Security-Policy"]
    assert "X-Frame-Options" not in page.headers
    assert "bob" not in await page.text()


async def test_a_link_cannot_be_bent_to_another_user(client: Client) -> None:
    """Nor be used for anything else."""
    links = await _links(client, "ada")
    for more in ("user=bob", "endpoint=generate_hint", "search=b", "without=user"):
        assert (await client.get(f"{links['json']}&{more}")).status == 400, more
    assert (await client.get(f"{links['json']}x")).status == 403
    assert (await client.get("/usage/user.json?link=bob")).status == 403
    signature = links["json"].partition("link=")[2]
    cookie = {"Cookie": f"meter_session={signature}"}
    assert (await client.get("/admin.json", headers=cookie)).status == 401


async def test_the_range_of_a_link_may_be_chosen(client: Client) -> None:
    """By the page that it stands in."""
    links = await _links(client, "ada")
    found = await (await client.get(f"{links['json']}&range=yesterday")).json()
    assert found["totals"]["calls"] == 0
