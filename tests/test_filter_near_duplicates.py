"""Near-duplicates against an exact oracle that knows neither hashes nor an index."""

import itertools
import json
import random
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filter_runs import filtered, kept_ids, make_run, rows_of, rules_of, sample

from seqdistill.errors import SeqdistillError
from seqdistill.stages.filter.checks.near_duplicates import Matches, near_duplicates
from seqdistill.stages.filter.checks.words import Sets, pair_sets, spelled, words

VOCABULARY = ["".join(pair) for pair in itertools.product("bcdfghklmnprstvz", ["ana", "elo", "iri", "oto", "usa", "ende"])]


def pairs(text: str) -> set[tuple[str, str]]:
    """The definition, in plain Python."""
    found = re.findall(r"\d+|[^\W\d_]+", unicodedata.normalize("NFKC", text).casefold())
    return set(itertools.pairwise(["", *found, ""]))


def jaccard(a: set[tuple[str, str]], b: set[tuple[str, str]]) -> float:
    return len(a & b) / len(a | b)


def oracle(texts: list[str], order: list[int], similarity: float) -> dict[int, int]:
    """Which row repeats which kept row, best rows first, every pair compared."""
    sets = [pairs(text) for text in texts]
    kept: list[int] = []
    gone: dict[int, int] = {}
    for row in order:
        better = next((k for k in kept if jaccard(sets[row], sets[k]) >= similarity - 1e-9), None)
        if better is None:
            kept.append(row)
        else:
            gone[row] = better
    return gone


def found(texts: list[str], order: list[int], similarity: float, same: list[int] | None = None) -> Matches:
    return near_duplicates(pair_sets(words(texts)), np.array(same or [0] * len(texts), np.uint64), np.array(order), similarity)


def planted(rng: random.Random, count: int, lengths: list[int]) -> list[str]:
    """Random texts and, for half of them, copies with some words changed, so that every similarity from .3 to 1 occurs."""
    texts = []
    while len(texts) < count:
        text = rng.choices(VOCABULARY, k=rng.choice(lengths))
        texts.append(" ".join(text))
        while rng.random() < 0.5:
            copy = list(text)
            for _ in range(rng.randint(0, max(1, len(text) // 8))):
                copy[rng.randrange(len(copy))] = rng.choice(VOCABULARY)
            texts.append(" ".join(copy))
    rng.shuffle(texts)
    return texts[:count]


def templated(rng: random.Random, count: int, words: int, slots: int, values: int) -> list[str]:
    """Rows of two frames that differ in the values of a few slots, spread over the frame."""
    chosen = rng.sample(VOCABULARY, values)
    frames = [rng.choices([f"{word}s" for word in VOCABULARY], k=words) for _ in range(2)]
    texts = []
    for row in range(count):
        text = list(frames[row % 2])
        for slot in range(slots):
            text.insert(slot * (words // slots + 1) + 1, rng.choice(chosen))
        texts.append(" ".join(text))
    return texts


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("lengths", [[1, 2, 3, 4], [6, 9, 14], [25, 40, 80], [400], [1, 5, 20, 100]])
def test_what_goes_is_exactly_what_the_oracle_says(similarity: float, lengths: list[int]) -> None:
    rng = random.Random(repr((similarity, lengths)))
    texts = planted(rng, 60 if lengths == [400] else 300, lengths)
    order = rng.sample(range(len(texts)), len(texts))
    matches = found(texts, order, similarity)
    expected = oracle(texts, order, similarity)
    assert {row: int(better) for row, better in enumerate(matches.kept_by) if better >= 0} == expected
    for row, better in expected.items():
        assert matches.similarity[row] == pytest.approx(jaccard(pairs(texts[row]), pairs(texts[better])))


@pytest.mark.parametrize("rows", [planted, lambda rng, count, _: templated(rng, count, words=14, slots=3, values=5)])
def test_the_path_of_large_clusters_says_the_same_as_the_oracle(
    rows: Callable[[random.Random, int, list[int]], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "FIRST_BLOCK": 3,
        "SMALL_BLOCK": 50,
        "FEW_CANDIDATES": 0,
        "CANDIDATES_AT_ONCE": 100,
        "PAIRS_AT_ONCE": 500,
        "POSITION_BITS": 2,
        "SIZE_BITS": 4,
        "_SIZES": 15,
    }.items():
        module = "near_duplicates" if "BLOCK" in name or name == "FEW_CANDIDATES" else "similar_pairs"
        monkeypatch.setattr(f"seqdistill.stages.filter.checks.{module}.{name}", value)
    rng = random.Random(3)
    texts = rows(rng, 400, [8, 20, 40])
    order = rng.sample(range(len(texts)), len(texts))
    matches = found(texts, order, 0.8)
    assert {row: int(better) for row, better in enumerate(matches.kept_by) if better >= 0} == oracle(texts, order, 0.8)


@pytest.mark.parametrize("similarity", [0.5, 0.8, 1.0])
def test_matrix_products_say_the_same_as_the_oracle(similarity: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MANY_PAIRS": 0, "PRODUCT_SECONDS": 0.0, "CELLS_AT_ONCE": 900, "COLUMNS_AT_ONCE": 50}.items():
        monkeypatch.setattr(f"seqdistill.stages.filter.checks.similar_pairs.{name}", value)
    rng = random.Random(4)
    texts = planted(rng, 300, [8, 20, 40])
    order = rng.sample(range(len(texts)), len(texts))
    matches = found(texts, order, similarity)
    expected = oracle(texts, order, similarity)
    assert matches.candidates == 0 and matches.counted > len(texts)
    assert {row: int(better) for row, better in enumerate(matches.kept_by) if better >= 0} == expected


def test_rows_just_under_the_similarity_are_counted_in_products_and_not_one_by_one() -> None:
    """One long text with random changes: any two are about .79 similar, so that every row is a candidate for every other."""
    rng = random.Random(5)
    many = ["".join(pair) for pair in itertools.product(VOCABULARY, repeat=2)]
    base = rng.choices(many, k=300)
    texts = []
    for _ in range(700):
        text = list(base)
        for _ in range(9):
            text[rng.randrange(300)] = rng.choice(many)
        texts.append(" ".join(text))
    matches = found(texts, list(range(len(texts))), 0.8)
    assert 0 < np.count_nonzero(matches.kept_by >= 0) < 700
    assert matches.candidates < 0.01 * len(texts) ** 2
    gone = np.flatnonzero(matches.kept_by >= 0)[:50]
    kept = [row for row in range(len(texts)) if matches.kept_by[row] < 0]
    sets = [pairs(text) for text in texts]
    for row in gone.tolist():
        assert matches.kept_by[row] == next(k for k in kept if jaccard(sets[k], sets[row]) >= 0.8)


NEWS = (
    "The police said on Monday that a coach with fifty people from the north had left the road near the old mill in rain, "
    "that the driver was asked why he did not stop at the bridge, and that the road will be closed until the evening"
)


@pytest.mark.parametrize(
    ("change", "answers"),
    [
        (("directly", "indirectly"), ("It was caused directly by rain.", "It was caused indirectly by rain.")),
        (("Five", "Six"), ("Five dead in coach crash near the old mill", "Six dead in coach crash near the old mill")),
        (("north", "south"), ("A coach from the north left the road", "A coach from the south left the road")),
    ],
)
def test_rows_whose_short_answers_differ_are_no_near_duplicates(
    tmp_path: Path, change: tuple[str, str], answers: tuple[str, str]
) -> None:
    prompt = f"{NEWS}. {change[0]}: what happened?"
    rows = [sample(prompt, answers[0]), sample(prompt.replace(*change), answers[1])]
    assert filtered(make_run(tmp_path / "differ", rows), validation=0.0).rejected == 0
    same = [sample(f"{NEWS}, says the mayor.", answers[0]), sample(f"{NEWS}, says a mayor.", answers[0])]
    assert filtered(make_run(tmp_path / "same", same), validation=0.0).by_rule == {"near_duplicate": 1}


@pytest.mark.parametrize(
    ("text", "number", "other"),
    [
        ("Fünf Menschen starben am Montag bei dem Unfall nahe der alten Mühle, wie die Polizei sagt.", "Fünf", "Sechs"),
        ("Cinq personnes sont mortes lundi dans un accident près du vieux moulin, dit la police.", "Cinq", "Sept"),
        ("El lunes murieron cinco personas en un accidente cerca del viejo molino, dice la policía.", "cinco", "ocho"),
        ("Lunedì sono morte due persone in un incidente vicino al vecchio mulino, dice la polizia.", "due", "tre"),
        ("Cinco pessoas morreram na segunda-feira em um acidente perto do velho moinho.", "Cinco", "Três"),
        ("В понедельник в аварии возле старой мельницы погибли пять человек, сообщила полиция.", "пять", "шесть"),
        ("Vijf mensen kwamen maandag om bij een ongeluk bij de oude molen, zegt de politie.", "Vijf", "Zes"),
        ("W poniedziałek w wypadku koło starego młyna zginęło pięć osób, mówi policja.", "pięć", "sześć"),
        ("周一在老磨坊附近发生的客车事故中有五人死亡，警方正在调查事故的原因，道路仍然封闭。", "五", "三"),
        ("周一在老磨坊附近发生的客车事故中有五个人死亡，警方正在调查事故的原因，道路封闭。", "五个", "七个"),
        ("月曜日に古い水車小屋の近くで起きたバスの事故で三人が死亡したと警察が発表しました。", "三", "四"),
        ("월요일 낡은 방앗간 근처에서 일어난 버스 사고로 다섯 명이 숨졌다고 경찰이 밝혔다.", "다섯", "여섯"),
        ("The police said on Monday that hundreds of people had left the town by the old mill.", "hundreds", "thousands"),
        ("The rider from the north came third in the race that was held by the old mill on Monday.", "third", "fourth"),
    ],
)
def test_numbers_in_words_are_numbers_in_other_languages_too(text: str, number: str, other: str) -> None:
    first, second, same = words([text, text.replace(number, other), text.replace("。", "！")]).numbers.tolist()
    assert first != second and first == same


def test_numbers_in_words_are_numbers() -> None:
    texts = ["two of them left", "three of them left", "one of them left", "some of them left", "2 of them left"]
    numbers = words(texts).numbers.tolist()
    assert len({*numbers[:2], numbers[4]}) == 3 and numbers[2] == numbers[3] == 0


@pytest.mark.parametrize(("words", "slots", "stay"), [(66, 5, 200), (24, 3, 5000), (13, 3, 20_000)])
def test_templated_rows_are_compared_with_few_others(words: int, slots: int, stay: int) -> None:
    """Two frames, 50 values a slot, no numbers: every row shares most of its words with 10,000 others."""
    texts = templated(random.Random(1), 20_000, words, slots, values=50)
    matches = found(texts, list(range(len(texts))), 0.8)
    assert 2 <= np.count_nonzero(matches.kept_by < 0) <= stay
    assert matches.candidates < 0.1 * len(texts) ** 2 and matches.counted < 50 * len(texts)


def test_the_result_does_not_depend_on_the_order_of_the_rows() -> None:
    rng = random.Random(5)
    texts = list(dict.fromkeys(planted(rng, 300, [5, 15, 40])))
    merit = rng.sample(range(len(texts)), len(texts))
    first = found(texts, merit, 0.8)
    moved = rng.sample(range(len(texts)), len(texts))  # moved[i] is the row that now stands at place i
    place = {row: i for i, row in enumerate(moved)}
    second = found([texts[row] for row in moved], [place[row] for row in merit], 0.8)
    assert {texts[row] for row in np.flatnonzero(first.kept_by < 0)} == {
        texts[moved[row]] for row in np.flatnonzero(second.kept_by < 0)
    }


def test_a_chain_of_neighbours_is_never_merged() -> None:
    base = [f"w{n}" for n in range(40)]
    chain = [" ".join(f"new{n}" if n < 2 * step else word for n, word in enumerate(base)) for step in range(20)]
    matches = found(chain, list(range(20)), 0.8)
    kept = np.flatnonzero(matches.kept_by < 0).tolist()
    assert len(kept) > 5 and kept[0] == 0
    for row in np.flatnonzero(matches.kept_by >= 0):
        assert jaccard(pairs(chain[row]), pairs(chain[matches.kept_by[row]])) >= 0.8


def test_planted_neighbours_are_found_and_the_best_row_survives() -> None:
    """Recall at least .99 from J = .8, precision 1, over short and long texts, as one figure each."""
    rng = random.Random(11)
    wanted = hit = dropped = right = 0
    for length in (6, 12, 30, 90, 300):
        for _ in range(60):
            texts = planted(rng, 12, [length])
            order = rng.sample(range(12), 12)
            matches = found(texts, order, 0.8)
            assert matches.kept_by[order[0]] == -1
            sets = [pairs(text) for text in texts]
            for rank, row in enumerate(order):
                kept = [better for better in order[:rank] if matches.kept_by[better] < 0]
                near = any(jaccard(sets[row], sets[better]) >= 0.8 for better in kept)
                wanted, hit = wanted + near, hit + (near and matches.kept_by[row] >= 0)
                dropped, right = dropped + (matches.kept_by[row] >= 0), right + (near and matches.kept_by[row] >= 0)
    assert wanted > 500 and hit / wanted >= 0.99 and right == dropped


def test_a_template_s_family_survives() -> None:
    names = [f"{a}{b}" for a in VOCABULARY[:40] for b in ("town", "ville", "burg")]
    texts = [f"The library of {name} will be closed for repairs until further notice" for name in names]
    assert (found(texts, list(range(len(texts))), 0.8).kept_by < 0).all()


def test_rows_that_differ_in_same_are_left_alone() -> None:
    texts = ["the train leaves at the hour of ten from platform two"] * 4
    assert found(texts, [0, 1, 2, 3], 0.8, [1, 1, 2, 2]).kept_by.tolist() == [-1, 0, -1, 2]


def test_words_ignore_case_punctuation_and_unicode_form_and_keep_signs() -> None:
    alike = ["Ｃａｆé, “No” 12!", "cafe\u0301 no 12", "CAFÉ - no: 12."]
    sets = [frozenset(one(text)) for text in alike]
    assert len(set(sets)) == 1
    assert one("3 + 4") != one("3 * 4") and one("漢字かな") != one("漢字カナ") and len(one("漢字かな")) == 5
    assert one("") == one("...") and len(one("")) == 1


@pytest.mark.parametrize(
    ("text", "other"),
    [
        *(("-7", "7"), ("at -4 degrees", "at 4 degrees"), ("(-4)", "(4)"), ("x = -3", "x = 3"), ("−40 °C", "40 °C")),
        *(("–5 °C", "5 °C"), ("-$5", "$5"), ("温度是-4度", "温度是4度"), ("-.5 and -0.5", "-.5 and 0.5"), ("-x = 4", "x = 4")),
        *(("a && !b", "a && b"), ("!(a || b)", "(a || b)"), ("a != b", "a = b"), ("f'(2)", "f(2)"), ("rm -r x", "rm r x")),
        *(("2³ eggs", "23 eggs"), ("1½ eggs", "11⁄2 eggs"), ("10⁶", "106")),
        *(
            ("(a + b) * c", "a + (b * c)"),
            ("(10 - 5) - 3", "10 - (5 - 3)"),
            ("[a] + b", "a + b"),
            ("2 × (3 + 4) * 5", "2 × 3 + 4 * 5"),
        ),
    ],
)
def test_a_mark_of_a_number_or_a_formula_counts(text: str, other: str) -> None:
    assert one(text) != one(other)
    assert spelled(text) != spelled(other)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        *(("-7", "−7"), ("it is -7", "It is –7."), ("well-known facts", "well known facts"), ("- 3 eggs", "3 eggs")),
        *(
            ("pages 3-5", "pages 3 5"),
            ("H₂O", "h2o"),
            ("25 m²", "25 m2"),
            ("2020-03-04", "2020 03 04"),
            ("COVID-19", "COVID 19"),
        ),
        *(
            ("f(x)-4", "f(x) - 4"),
            ("Stop!", "Stop."),
            ("Stop! Go on", "Stop, go on"),
            ("¡Hola!", "hola"),
            ("Now! (he said)", "now he said"),
        ),
        *(
            ("the boat -no, the ship", "the boat no the ship"),
            ("he said (twice) so", "he said twice, so"),
            ("太好了！我", "太好了。我"),
        ),
        *(
            ("the dog's bone", "the dog’s bone"),
            ("- milk\n- eggs", "milk, eggs"),
            ("'(a)'", "a"),
            ("a[i] is b(c)", "a i is b c"),
        ),
        *(("sum\u00admer", "summer"), ("b\u200blue", "blue"), ("\ufeffblue", "blue"), ("می\u200cخواهم", "میخواهم")),
    ],
)
def test_other_marks_and_characters_of_no_width_do_not_count(text: str, other: str) -> None:
    assert one(text) == one(other)
    assert spelled(text) == spelled(other)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("What is the opposite of 7?", "-7"), ("What is the opposite of -7?", "7")),
        (("Is it freezing at -4 degrees?", "Yes"), ("Is it freezing at 4 degrees?", "Yes")),
        (("Negate: a && !b", "!a || b"), ("Negate: !a && b", "a || !b")),
        (("Write as a tree: (a + b) * c", "((a + b) * c)"), ("Write as a tree: a + (b * c)", "(a + (b * c))")),
        (("Close the brackets: { ( [ ] )", "}"), ("Close the brackets: ( { [ ] }", ")")),
        ((f"{NEWS}, at 12 m and 5 m.", "It was so at 12 m."), (f"{NEWS}, at -12 m and -5 m.", "It was so at -12 m.")),
    ],
)
def test_tasks_that_differ_in_a_sign_or_a_bracket_are_different(
    tmp_path: Path, first: tuple[str, str], second: tuple[str, str]
) -> None:
    assert filtered(make_run(tmp_path, [sample(*first), sample(*second)]), validation=0.0).rejected == 0


def one(text: str) -> list[int]:
    return pair_sets(words([text])).hashes.tolist()


def test_a_batch_s_hashes_are_those_of_each_text_alone() -> None:
    texts = ["a b c", "", "ünï cödé", "x" * 1000, "1 2 3 1 2 3", "\0 a\0b", "漢字 abc"]
    together = pair_sets(words(texts))
    for row, text in enumerate(texts):
        assert together.hashes[together.bounds[row] : together.bounds[row + 1]].tolist() == one(text)
    assert isinstance(together, Sets) and len(together) == len(texts)


# --- in the stage -----------------------------------------------------------------------------------------------------

LONG = (
    "The harbour master asks all owners of small boats to move them before the storm reaches the coast, because the old wall "
    "at the north pier is being rebuilt and cannot hold back high waves this winter"
)


def test_by_default_prompt_and_completion_are_compared_together(tmp_path: Path) -> None:
    rows = [
        sample(LONG, "Owners should move their small boats before the storm because the wall is weak."),
        sample(LONG + " or next", "Owners should move their small boats before the storm because the wall is weak."),
        sample(LONG + " or later", "A quite different answer about the harbour that shares few words with the other."),
        sample(LONG, "Move boats.", sample=1),
    ]
    run = make_run(tmp_path, rows)
    filtered(run)
    (gone,) = rows_of(run, "rejected.jsonl")
    assert gone["rule"] == "near_duplicate" and {gone["id"], gone["kept_by"]} == {rows[0].id, rows[1].id}
    assert "pair similarity 0." in gone["reason"]


@pytest.mark.parametrize(
    ("scope", "gone"), [("prompt", {2}), ("response", {1, 4}), ("within-prompt", {4}), ("pair", {4}), ("off", set())]
)
def test_each_scope_compares_what_it_says(tmp_path: Path, scope: str, gone: set[int]) -> None:
    answer = "Boats have to be moved before the storm comes since the pier is under repair this winter"
    rows = [
        sample(LONG, answer),
        sample("How does one keep a boat safe in a storm?", answer + " season"),
        sample(LONG + " or next", "Nobody knows what the harbour master will say about this tomorrow morning."),
        sample(LONG, "Ships may stay where they are, as far as anyone can tell from what was written here.", sample=1),
        sample(LONG, answer + " again", sample=2),
    ]
    run = make_run(tmp_path, [row.__dict__ | {"score": -number} for number, row in enumerate(rows)])
    filtered(run, near_duplicates={"scope": scope})
    assert kept_ids(run) == {row.id for number, row in enumerate(rows) if number not in gone}


def test_the_samples_of_a_prompt_stay_or_go_together_where_prompts_are_compared(tmp_path: Path) -> None:
    first = [sample(LONG, text, sample=n) for n, text in enumerate(("Move the boats.", "Ask him.", "The storm is near."))]
    other = [sample(LONG + " or next", text, sample=n) for n, text in enumerate(("Stay.", "Nobody can tell."))]
    rows = [vars(row) | {"score": -number} for number, row in enumerate([*first, *other])]
    run = make_run(tmp_path, rows)
    filtered(run, near_duplicates={"scope": "prompt"})
    assert kept_ids(run) == {row.id for row in first}
    assert {row["kept_by"] for row in rows_of(run, "rejected.jsonl")} == {first[0].id}
    filtered(run, near_duplicates={"scope": "prompt"}, score={"by": "vote"}, select={"best_n": 2})
    kept = kept_ids(run)
    assert len(kept) == 2 and (kept < {row.id for row in first} or kept == {row.id for row in other})


def test_rows_that_differ_in_numbers_are_different_tasks(tmp_path: Path) -> None:
    rows = [sample(f"{LONG}. It happened {n} times.", f"{LONG}; it happened {n} times in all.") for n in range(30)]
    assert filtered(make_run(tmp_path / "a", rows)).rejected == 0
    assert filtered(make_run(tmp_path / "b", rows), near_duplicates={"numbers": False}).by_rule == {"near_duplicate": 29}


def test_unicode_variants_are_near_duplicates(tmp_path: Path) -> None:
    row = sample("Où se trouve le café de l'hôtel ?", "Le café se trouve au rez-de-chaussée.")
    other = sample("Ou\u0300 se trouve « le cafe\u0301 » de l’ho\u0302tel?", "Le café se trouve au rez de chaussée!")
    assert filtered(make_run(tmp_path, [row, other])).by_rule == {"near_duplicate": 1}


def test_the_best_scored_row_of_a_cluster_survives(tmp_path: Path) -> None:
    rng = random.Random(2)
    rows, best = [], set()
    for _ in range(40):
        text = rng.choices(VOCABULARY, k=60)
        scores = rng.sample(range(100), 5)
        for score in scores:
            copy = list(text)
            copy[rng.randrange(60)] = "changed"
            row = sample(" ".join(copy[:30]), " ".join(copy[30:]), sample=len(rows))
            rows.append(row.__dict__ | {"score": score})
            best |= {row.id} if score == max(scores) else set()
    rng.shuffle(rows)
    run = make_run(tmp_path, rows)
    assert filtered(run).rejected == 160
    assert kept_ids(run) == best


def test_the_guard_stops_before_templated_data_is_wiped(tmp_path: Path) -> None:
    said = "Boats must go before the storm comes, as the old wall is weak, says"
    rows = [sample(f"{LONG} {a}", f"{said} {a}", slice="a") for a in VOCABULARY]
    rows += [
        sample(f"Tell {a} and {b} about {c}", f"Done: {c}, {b}", slice="b")
        for a, b, c in zip(*[iter(VOCABULARY)] * 3, strict=False)
    ]
    rows += [sample(f"{LONG} {a} {a}", f"{said} the {a}", slice="a") for a in VOCABULARY[:40]]
    run = make_run(tmp_path, rows)
    with pytest.raises(SeqdistillError) as raised:
        filtered(run)
    assert (
        "slice 'a'" in raised.value.message
        and "[filter.near_duplicates]" in raised.value.hint
        and "guard = 1" in raised.value.hint
    )
    filtered(run, near_duplicates={"guard": 1.0})
    assert set(rules_of(run).values()) == {"near_duplicate"}
    report = json.loads(run.file("filter", "report.json").read_text())
    assert report["by_slice"]["b"]["kept"] == 32 and report["clusters"]["largest"][0]["rejected"] > 100


@pytest.mark.parametrize("by", ["none", "consensus"])
def test_many_samples_of_a_prompt_that_are_alike_are_no_templated_data(by: str, tmp_path: Path) -> None:
    rng = random.Random(5)
    rows = []
    for _ in range(20):
        asked, said = (" ".join(rng.choices(VOCABULARY, k=30)) for _ in range(2))
        rows += [sample(asked, f"{said} {end}", sample=n) for n, end in enumerate(VOCABULARY[:8])]
    run = make_run(tmp_path, rows)
    assert filtered(run, validation=0, score={"by": by}).by_rule == {"near_duplicate": 140}
