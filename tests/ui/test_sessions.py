"""Who sees and does what on the pages: signing in and out, rights, forms."""

from __future__ import annotations

from typing import Any

from holdfast.clock import SYSTEM
from holdfast.hub.principal import SCOPES
from holdfast.hub.sign_ins import SignIn, digest_of
from holdfast.hub.tokens import revoke
from holdfast.hub.ui.pages import PAGES
from tests.hub.pens import Pen
from tests.ui.inside import SAME, WISHES, Guarded, Inside

# -- who may -----------------------------------------------------------------------------------------------------


def test_without_a_session_there_is_only_the_way_in(guarded: Guarded) -> None:
    for page in PAGES:
        path = page.path.replace("{rest:path}", "x")
        if page.needs == "" or page.path == "/ui/events":
            continue
        answer = guarded.client.request(page.method, path, headers=SAME, data={} if page.method == "POST" else None,
                                        follow_redirects=False)  # fmt: skip
        if page.method == "GET":
            assert (answer.status_code, answer.headers["location"]) == (303, f"/sign-in?next={path}")
            assert guarded.client.get(path).status_code == 401, "programs are told"
            assert guarded.client.get(f"{path}.json").status_code == 401
        else:
            assert answer.status_code in (401, 403)
    assert guarded.page("/").headers["location"] == "/sign-in"
    assert guarded.page("/no/such").headers["location"] == "/sign-in?next=/no/such"
    assert guarded.client.get("/ui/events?page=overview").status_code == 401
    sign_in = guarded.good("/sign-in?next=/nodes")
    assert "<nav" not in sign_in, "a stranger learns nothing"


def test_each_role_sees_what_its_token_may(guarded: Guarded) -> None:
    guarded.furnisher.nodes()
    guarded.furnisher.json(
        *("POST", "/relay/immediate", {"agent_id": "recruiter-1", "table": "leads", "data": {"id": "acme", "n": 1}}),
    )
    pen = Pen("herald")
    pen.put("k", 1, collection="public/news")
    guarded.furnisher.ship("tower", [pen])
    for role in WISHES:
        assert guarded.sign_in(role).status_code == 303, role
        got = [guarded.page(path).status_code for path in ("/", "/nodes", "/agents", "/data", "/data/state")]
        assert got == {"blind": [403] * 5, "public": [200, 200, 200, 200, 403]}.get(role, [200] * 5), role
    guarded.sign_in("public")
    told = {path: guarded.client.get(f"/{path}.json").json() for path in ("overview", "nodes", "agents", "data")}
    text = repr(told)
    for hidden in ("laptop", "deck", "recruiter", "leads", "coder", "htpc", "vault"):
        assert hidden not in text, hidden
    assert told["overview"]["storage"]["records"] == 1
    assert [each["node"] for each in told["nodes"]["nodes"]] == ["tower"]
    assert guarded.page("/agents/recruiter-1").status_code == guarded.page("/agents/nobody").status_code == 404
    assert guarded.page("/nodes/laptop").status_code == 404
    assert set(SCOPES) >= {page.needs for page in PAGES if page.needs}


def test_a_session_is_for_pages_alone_and_ends_with_its_token(guarded: Guarded) -> None:
    cookie = guarded.sign_in("admin").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Path=/" in cookie
    assert guarded.texts["admin"] not in cookie
    assert guarded.page("/").status_code == 200
    assert "person root" in guarded.good("/")
    assert guarded.client.get("/v1/agents").status_code == 401, "the API does not look at cookies"
    assert guarded.client.get("/nodes.json").status_code == 200
    assert guarded.page("/sign-in").headers["location"] == "/"
    store = guarded.core.home.open_tokens()
    revoke(store, guarded.ids["admin"])
    store.close()
    guarded.core.gate.tokens.refresh()
    assert guarded.page("/").status_code == 303


def test_signing_out_ends_the_session_everywhere(guarded: Guarded) -> None:
    guarded.sign_in("reader")
    kept = dict(guarded.client.cookies)
    (form,) = (each for each in guarded.forms("/nodes") if list(each) == ["form_token"])
    assert guarded.send("/sign-out", {}).status_code == 403, "without the form's token"
    assert guarded.page("/nodes").status_code == 200
    assert guarded.send("/sign-out", form).headers["location"] == "/sign-in"
    guarded.client.cookies.update(kept)
    assert guarded.page("/nodes").status_code == 303, "the cookie that was kept is worth nothing"
    store = guarded.core.home.open_tokens()
    assert store.sign_ins().find(digest_of(next(iter(kept.values()))), "session") is None
    store.close()


def test_a_link_lets_one_in_once(guarded: Guarded) -> None:
    now, store = SYSTEM.now_ms(), guarded.core.home.open_tokens()
    links = store.sign_ins()
    links.add(SignIn(digest_of("good"), "link", guarded.ids["reader"], now, now + 60_000))
    links.add(SignIn(digest_of("late"), "link", guarded.ids["reader"], now - 9, now - 1))
    store.close()

    def come(link: str) -> Any:
        (form,) = (each for each in guarded.forms(f"/sign-in?link={link}&next=//evil.example") if "link" in each)
        return guarded.send("/sign-in", form)

    assert guarded.page("/").status_code == 303, "to look at it does not use it up"
    answer = come("good")
    assert (answer.status_code, answer.headers["location"]) == (303, "/"), "and leads nowhere else"
    assert "person ada" in guarded.good("/")
    guarded.client.cookies.clear()
    for link in ("good", "late", "never"):
        answer = come(link)
        assert answer.status_code == 401
        assert "holdfast ui link" in answer.text
    assert guarded.page("/").status_code == 303


def test_who_is_wrong_too_often_waits(guarded: Guarded) -> None:
    (form,) = (each for each in guarded.forms("/sign-in") if "next" in each)
    got = [guarded.send("/sign-in", {**form, "token": f"hf_person_x_{n}"}).status_code for n in range(11)]
    assert got == [401] * 10 + [429]
    answer = guarded.send("/sign-in", {**form, "token": guarded.texts["admin"]})
    assert answer.status_code == 429
    assert answer.headers["retry-after"]


def test_no_other_page_acts_here(guarded: Guarded) -> None:
    guarded.sign_in("admin")
    form = next(each for each in guarded.forms("/") if "back" in each and "zone" not in each)
    assert guarded.send("/ui/scheme", {**form, "scheme": "dark"}).status_code == 303
    for headers in (
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert guarded.send("/ui/scheme", {**form, "scheme": "dark"}, **headers).status_code == 403, headers
    assert guarded.send("/ui/scheme", {**form, "form_token": "0" * 64}).status_code == 403
    answer = guarded.client.post("/ui/scheme", content=b"{}", headers={**SAME, "Content-Type": "application/json"})
    assert answer.status_code == 415
    admins = form["form_token"]
    guarded.sign_in("reader")
    assert guarded.send("/ui/scheme", {**form, "form_token": admins}).status_code == 403, "a form of another session"


def test_colours_and_keys_stay_as_they_were_chosen(inside: Inside) -> None:
    form = next(each for each in inside.forms("/data?after=x") if "back" in each and "zone" not in each)
    answer = inside.send("/ui/scheme", {**form, "scheme": "dark"})
    assert answer.headers["location"] == "/data?after=x"
    assert inside.send("/ui/scheme", {**form, "keys": "off"}).status_code == 303
    assert 'data-scheme="dark" data-keys="off"' in inside.good("/nodes")
    for back in ("//evil.example", "/\\evil.example", "https://evil.example/x"):
        assert inside.send("/ui/scheme", {**form, "back": back}).headers["location"] in ("/", "/x")


# -- changing ----------------------------------------------------------------------------------------------------


def test_a_key_is_deleted_with_a_reason_and_comes_back(guarded: Guarded) -> None:
    def put(n: int) -> None:
        row = {"agent_id": "recruiter-1", "table": "leads", "data": {"id": "acme", "n": n}}
        guarded.furnisher.json("POST", "/relay/immediate", row)

    put(1)
    put(2)
    place = "/data/table%2Fleads/acme?agent=recruiter-1"
    guarded.sign_in("reader")
    assert "records:write" in guarded.good(place)
    assert len(guarded.forms(place)) < 5
    guarded.sign_in("writer")
    forms = {form["what"]: form for form in guarded.forms(place) if "what" in form}
    assert guarded.send("/data/change", forms["delete"]).status_code == 400, "it needs a reason"
    done = guarded.send("/data/change", {**forms["delete"], "reason": "<b>a duplicate</b>"})
    assert done.status_code == 303
    assert "&lt;b&gt;a duplicate&lt;/b&gt;" in guarded.good(done.headers["location"])
    assert guarded.send("/data/change", {**forms["delete"], "reason": "again"}).status_code == 409
    assert guarded.send("/data/change", forms["rollback"]).status_code == 409, "it is not as it was shown"
    (form,) = (each for each in guarded.forms(place) if each.get("version") == "1")
    assert guarded.send("/data/change", form).status_code == 303
    told = guarded.client.get("/data/table%2Fleads/acme.json?agent=recruiter-1").json()
    assert told["shown_value"]["value"] == {"id": "acme", "n": 1}
    assert told["shown"]["author"] == "leads"
    assert [each["gone"] for each in told["versions"]] == [False, True, False, False]
    assert told["versions"][1]["reason"] == "<b>a duplicate</b>"


def test_what_is_not_the_hubs_is_not_changed_here(guarded: Guarded) -> None:
    guarded.furnisher.nodes()
    guarded.furnisher.talk()
    row = {"agent_id": "other-1", "table": "leads", "data": {"id": "acme", "n": 1}}
    guarded.furnisher.json("POST", "/relay/immediate", row)
    before = guarded.core.corpus.last()
    session = f"{guarded.furnisher.session}/session"
    for role, agent, collection, key in (
        ("admin", "recruiter-1", "state", "plan/01"),
        ("admin", "recruiter-1", "sessions", session),
        ("writer", "other-1", "table/leads", "acme"),
    ):
        guarded.sign_in(role)
        (token,) = {each["form_token"] for each in guarded.forms("/")}
        told = guarded.client.get("/data.json", params={"agent": agent, "collection": collection, "key": key}).json()
        assert not told["may_change"]
        assert told["why_not"]
        asked = {"form_token": token, "agent": agent, "collection": collection, "key": key, "what": "delete"}
        answer = guarded.send("/data/change", {**asked, "expect": told["shown"]["etag"], "reason": "because"})
        assert answer.status_code == 403, (role, answer.text)
    assert guarded.core.corpus.last() == before
