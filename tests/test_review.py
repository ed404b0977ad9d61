"""The review page: what its server refuses, what it shows, and what is on the disk when it answers."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filter_runs import filtered_run, reviewing
from review_rows import HOSTILE, ROWS, sample

from seqdistill.decisions import decisions_file, read_decisions
from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.records import to_line, write_jsonl
from seqdistill.review.page import Review, Server, review, serve
from seqdistill.runs import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return filtered_run(tmp_path / "notices", ROWS)


@pytest.fixture
def server(run: Run) -> Iterator[Server]:
    with reviewing(run) as made:
        yield made


def ask(server: Server, page: str, body: Any = None, *, token: str | None = None, **headers: str) -> tuple[int, Any]:
    """Status and content of one request; a body makes it a POST."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    sent = {"Host": f"127.0.0.1:{server.port}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    data = None
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **sent}
    path = f"/{server.token if token is None else token}/{page}"
    connection.putrequest("GET" if body is None else "POST", path, skip_host=True)
    for name, value in {**sent, **({} if data is None else {"Content-Length": str(len(data))})}.items():
        connection.putheader(name, value)
    connection.endheaders(data)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if answer.headers["Content-Type"] == "application/json" else content.decode()


def view(server: Server, **choice: str) -> dict[str, Any]:
    query = "&".join(f"{name}={value}" for name, value in choice.items())
    status, answer = ask(server, f"select?{query}")
    assert status == 200, answer
    return dict(answer)


def decide(server: Server, number: int, decision: str, completion: str | None = None) -> tuple[int, Any]:
    body = {"number": number, "decision": decision, "completion": completion, "view": view(server)["view"]}
    return ask(server, "decide", body)


@pytest.mark.parametrize("page", ["", "review.js", "about", "row?number=0", "select", "decide", "nothing"])
@pytest.mark.parametrize("token", ["", "x", "..", "%2e%2e"])
def test_nothing_is_answered_without_the_token(server: Server, page: str, token: str) -> None:
    assert ask(server, page, token=token)[0] == 403
    assert ask(server, page, {}, token=token)[0] == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:{port}.evil.example", "[::1]:{port}", ""]
)
def test_another_host_name_is_refused_even_with_the_token(server: Server, host: str) -> None:
    status, answer = ask(server, "about", Host=host.format(port=server.port))
    assert status == 421
    assert "notices" not in json.dumps(answer)


def test_the_page_loads_nothing_from_elsewhere_and_runs_only_its_own_script(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", f"/{server.token}/")
    answer = connection.getresponse()
    page = answer.read().decode()
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert (answer.headers["X-Content-Type-Options"], answer.headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
    assert "http:" not in page and "https:" not in page and "style=" not in page and "onclick" not in page
    for name in ("review.css", "review.js"):
        assert name in page
        status, content = ask(server, name)
        assert status == 200 and "innerHTML" not in content and "url(" not in content


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Content_Type": "text/plain"}, {"Origin": "null"}, {"Content_Type": ""}]
)
def test_another_site_cannot_decide(server: Server, run: Run, headers: dict[str, str]) -> None:
    body = {"number": 0, "decision": "reject", "completion": None, "view": view(server)["view"]}
    assert ask(server, "decide", body, **headers)[0] == 403
    assert read_decisions(run) == {}


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"\xff", {}, {"number": "0", "decision": "accept", "completion": None, "view": 1}]
    + [{"number": n, "decision": d, "completion": c, "view": 1} for n, d, c in [(0, "love", None), (0, "edit", None)]]
    + [{"number": n, "decision": d, "completion": c, "view": 1} for n, d, c in [(0, "edit", " \n"), (-1, "accept", None)]]
    + [{"number": n, "decision": d, "completion": c, "view": 1} for n, d, c in [(99, "accept", None), (0, "accept", "x")]],
)
def test_a_wrong_decision_is_refused_and_not_written(server: Server, run: Run, body: Any) -> None:
    assert view(server)["view"] == 1
    status, answer = ask(server, "decide", body)
    assert status in (400, 409) and answer["error"]
    assert decisions_file(run).read_bytes() == b""


@pytest.mark.parametrize(
    "page", ["row?number=x", "row", "screen?view=1", "screen?view=77&start=0&count=5", "select?show=x", "row?number=7", "none"]
)
def test_a_wrong_question_is_answered_in_words(server: Server, page: str) -> None:
    status, answer = ask(server, page)
    assert status in (400, 404, 409) and answer["error"]


def test_a_row_is_shown_with_why_it_was_rejected_and_what_was_kept_instead(server: Server) -> None:
    _, row = ask(server, "row?number=0")
    assert (row["file"], row["rule"], row["reason"]) == ("rejected", "near_duplicate", "pair similarity 0.9")
    assert (row["kept_by"], row["kept_text"], row["final"]) == ("p0:teacher:0", "The road is closed.", False)
    _, row = ask(server, "row?number=4")
    assert (row["file"], row["rule"], row["completion"]) == ("train", None, HOSTILE)
    _, row = ask(server, "row?number=6")
    assert (row["reference"], row["reasoning"], row["facts"]["slice"]) == ("Open.", "it said so", "hard")


def test_rows_are_chosen_by_state_rule_and_text(server: Server) -> None:
    assert decide(server, 0, "accept")[0] == 200

    def chosen(**choice: str) -> list[int]:
        _, screen = ask(server, f"screen?view={view(server, **choice)['view']}&start=0&count=50")
        return [row["number"] for row in screen["rows"]]

    assert chosen() == [3, 4, 5, 6, 0, 1, 2], "what is trained on comes first"
    assert chosen(show="open") == [3, 4, 5, 6, 1, 2]
    assert chosen(show="reviewed") == [0]
    assert chosen(show="kept") == [3, 4, 5, 6]
    assert chosen(show="rejected", rule="contamination") == [1]
    assert chosen(text="ROAD") == [3, 0]
    assert chosen(text="%22quoted%22") == [4]
    assert chosen(text="content") == []  # a key of the file is no text
    assert chosen(text="p6:teacher") == [2]


def test_a_selection_stays_while_its_rows_are_decided_and_counts_them(server: Server) -> None:
    chosen = view(server, show="open")
    assert (chosen["count"], chosen["reviewed"]) == (7, 0)
    status, answer = ask(server, "decide", {"number": 3, "decision": "accept", "completion": None, "view": chosen["view"]})
    assert (status, answer["count"], answer["reviewed"]) == (200, 7, 1)
    _, screen = ask(server, f"screen?view={chosen['view']}&start=0&count=2")
    assert [(row["number"], row["decision"]) for row in screen["rows"]] == [(3, "accept"), (4, None)]


def test_a_decision_is_on_the_disk_when_it_is_answered_and_undo_is_a_line_too(server: Server, run: Run) -> None:
    assert decide(server, 3, "edit", "The road is closed today.")[0] == 200
    held = read_decisions(run)["p0:teacher:0"]
    assert (held.decision, held.completion, held.reviewer) == ("edit", "The road is closed today.", "maria")
    assert ask(server, "row?number=3")[1]["decision"]["completion"] == "The road is closed today."
    assert decide(server, 3, "undo")[0] == 200
    assert read_decisions(run) == {}
    lines = decisions_file(run).read_text().splitlines()
    assert [json.loads(line)["decision"] for line in lines] == ["edit", "undo"]
    assert ask(server, "row?number=3")[1]["decision"] is None


def test_two_reviewers_of_one_run_see_each_others_decisions(server: Server, run: Run) -> None:
    with Review(run, "jan") as other:
        other.decide(3, "reject", None, other.select("all", "", "")["view"])
        assert ask(server, "row?number=3")[1]["decision"]["reviewer"] == "jan"
        assert decide(server, 4, "accept")[0] == 200
        assert other.select("reviewed", "", "")["count"] == 2


def test_what_is_in_the_test_set_cannot_be_accepted(server: Server, run: Run) -> None:
    assert ask(server, "row?number=1")[1]["final"]
    assert decide(server, 1, "accept")[0] == decide(server, 1, "edit", "new")[0] == 409
    assert decide(server, 1, "reject")[0] == 200


def test_the_page_is_notified_when_the_filter_has_written_new_files(server: Server, run: Run) -> None:
    assert not view(server)["outdated"]
    write_jsonl(run.file("filter", "train.jsonl"), [])
    assert view(server)["outdated"]
    assert ask(server, "row?number=3")[1]["completion"] == "The road is closed."


def test_a_damaged_decisions_file_is_named_by_its_line(server: Server, run: Run) -> None:
    with decisions_file(run).open("a") as file:
        file.write("{}\n")
    status, answer = ask(server, "row?number=3")
    assert status == 409 and "decisions.jsonl:1" in answer["error"]


def test_a_hundred_thousand_rows_are_served_a_screen_at_a_time(tmp_path: Path) -> None:
    line = to_line(sample(0, "Notice in short."))
    run = filtered_run(tmp_path / "many", {"train.jsonl": [], "validation.jsonl": [], "rejected.jsonl": []})
    many = (line.replace('"p0', f'"p{number}').replace("in short", f"{number} in short") for number in range(100_000))
    run.file("filter", "train.jsonl").write_text("".join(many))
    with Review(run, "maria") as session:
        chosen = session.select("all", "", "")
        assert chosen["count"] == 100_000
        screen = session.screen(chosen["view"], 99_950, 10_000)
        assert [row["number"] for row in screen["rows"]] == list(range(99_950, 100_000))
        assert len(session.screen(chosen["view"], 0, 10_000)["rows"]) == 200
        assert session.select("all", "", "notice 99999 in")["count"] == 1


def test_finish_ends_the_command_with_its_counts(run: Run) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "seqdistill", "review", str(run.path), "--json", "--reviewer", "maria"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    url = process.stderr.readline().split()[-1]
    port, token = int(url.split(":")[2].split("/")[0]), url.split("/")[3]
    for page, body in (
        ("select", None),
        ("decide", {"number": 0, "decision": "accept", "completion": None, "view": 1}),
        ("finish", {}),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        sent = None if body is None else json.dumps(body)
        connection.request("POST" if sent else "GET", f"/{token}/{page}", sent, {"Content-Type": "application/json"})
        assert connection.getresponse().status == 200
        connection.close()
    out, _ = process.communicate(timeout=30)
    answer = json.loads(out)
    assert (process.returncode, answer["accepted"], answer["edited"], answer["rejected"]) == (0, 1, 0, 0)


def test_review_before_filter_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not there yet"):
        review(Run(tmp_path / "new"), 0, None, None, None, Silent())


def test_a_taken_port_is_named(server: Server, run: Run) -> None:
    with Review(run, "jan") as session, pytest.raises(UsageError, match=f"--port {server.port}"):
        serve(session, server.port)
