"""Personal data: recall and precision on a planted set, masking on both sides, nothing repeated, hostile text."""

# ruff: noqa: E501 - the planted texts are lines

import random
import string
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import filter_runs
import pytest

from seqdistill.personal_data import KINDS, Finding, count, find, mask, reason
from seqdistill.records import Sample

RANDOM = random.Random(20)


def draw(alphabet: str, length: int) -> str:
    """A random value that holds a digit, as issued keys do."""
    drawn = "".join(RANDOM.choices(alphabet, k=length - 1))
    at = RANDOM.randrange(length)
    return drawn[:at] + RANDOM.choice("234567") + drawn[at:]


def with_luhn(prefix: str, length: int) -> str:
    body = prefix + "".join(RANDOM.choices(string.digits, k=length - len(prefix) - 1))
    total = sum(sum(divmod(int(d) * (2 if n % 2 == 0 else 1), 10)) for n, d in enumerate(reversed(body)))
    return body + str(-total % 10)


def grouped(digits: str, *sizes: int, by: str = " ") -> str:
    parts, at = [], 0
    for size in sizes:
        parts.append(digits[at : at + size])
        at += size
    return by.join(parts)


WORD = string.ascii_letters + string.digits
EMAILS = [
    "anna@example.com",
    "j.smith+news@mail.example.co.uk",
    "o'neil@example.ie",
    "first.last@sub.domain.example.org",
    "x_y-z@example.museum",
    "MARIA.ROSSI@EXAMPLE.IT",
    "info@straße-münchen.de",
    "1984@example.net",
    "a@b.io",
    "office%desk@example.com",
    "clerk@town-hall.example.gov",
    "jürgen.müller@example.de",
    "support@xn--mnchen-3ya.de",
    "bob99@example.travel",
    "tenders.2024@council.example.au",
]
PHONES = (
    """
+1 212-555-0143|+1 (212) 555-0143|+12125550143|+44 20 7946 0958|+44 (0)20 7946 0958|+44 7911 123456|+49 30 901820|+49 (0)151 23456789
+49-89-636-48018|+33 6 12 34 56 78|+33612345678|+34 612 34 56 78|+39 06 698 12345|+31 20 624 1111|+41 44 668 18 00|+43 1 58858-0
+48 22 694 75 00|+351 21 322 0000|+46 8 508 290 00|+353 1 222 2222|+61 2 9265 9333|+91 98765 43210|+55 11 91234-5678|+86 138 1234 5678
+7 495 123-45-67|+81 3-1234-5678|+82 2-312-3456|+27 21 400 1111|+52 55 5658 1111|+972 3-521-8438|0049 30 901820|0044 20 7946 0958
(212) 555-0143|212-555-0143|212.555.0143|(555) 123-4567|555-123-4567|1-800-555-0199|1 (415) 555-2671|(415)555-2671|800-555-0199
020 7946 0958|0161 496 0123|07911 123456|(020) 7946 0958|0800 123 456|07700 900123|0131 496 0852|029 2018 0123
030 901820|030/901820|0151 23456789|(030) 901820|089 636 48018|0171 1234567
06 12 34 56 78|01 42 76 40 40|06.12.34.56.78|06-12-34-56-78|0612345678|07 81 23 45 67|04 91 55 11 11
06 6981 2345|020 624 1111|06 12345678|044 668 18 00|02 9265 9333|08-508 290 00
07911123456|0471 123456
""".replace("\n", "|")
    .strip("|")
    .split("|")
)
CALLED = (
    """
Call 555-0143|Rufnummer 0221 2210|Tel 01 58858|Tel. 694 75 00 12|Phone: 2125550143|tel 612 34 56 78|Telefon 694 750 012|Fax: 914 56 78 90|llame al 912 345 678
Mobil: 98765 43210|call us at 9265 9333|WhatsApp 11 91234-5678|Tél : 2 33 44 55 66|телефон 8 (495) 123-45-67|Phone number of the office: 555 0143|Call 212 555 0143|text us on 9265 9333|tel:+12125550143|Tel.:030 901820
""".replace("\n", "|")
    .strip("|")
    .split("|")
)
IBANS = (
    """
DE89 3704 0044 0532 0130 00|DE89370400440532013000|GB29 NWBK 6016 1331 9268 19|FR14 2004 1010 0505 0001 3M02 606|NL91 ABNA 0417 1643 00
ES91 2100 0418 4502 0005 1332|IT60 X054 2811 1010 0000 0123 456|AT61 1904 3002 3457 3201|CH93 0076 2011 6238 5295 7|BE68 5390 0754 7034
PL61 1090 1014 0000 0712 1981 2874|SE45 5000 0000 0583 9825 7466|PT50 0002 0123 1234 5678 9015 4|IE29 AIBK 9311 5212 3456 78|nl91abna0417164300
NO93 8601 1117 947|DK50 0040 0440 1162 43|FI21 1234 5600 0007 85|LU28 0019 4006 4475 0000|MT84 MALT 0110 0001 2345 MTLC AST0 01S
""".replace("\n", "|")
    .strip("|")
    .split("|")
)
CARDS = [
    *("4111 1111 1111 1111", "4111111111111111", "4012-8888-8888-1881", "5555 5555 5555 4444", "2223 0031 2200 3222"),
    *(
        "3782 822463 10005",
        "378282246310005",
        "6011 1111 1111 1117",
        "3530 1113 3330 0000",
        "3056 930902 5904",
        "6200 0000 0000 0005",
    ),
    *(grouped(with_luhn("4", 16), 4, 4, 4, 4, by=by) for by in (" ", "-", "", " ", "-", "") for _ in range(3)),
    *(grouped(with_luhn("53", 16), 4, 4, 4, 4) for _ in range(6)),
    *(grouped(with_luhn("37", 15), 4, 6, 5) for _ in range(4)),
]
SECRETS = [
    *("sk-" + draw(WORD, 48) for _ in range(3)),
    *("sk-proj-" + draw(WORD + "-_", 120) for _ in range(2)),
    "sk-ant-" + "api03-" + draw(WORD + "-_", 90),
    *("AK" + "IA" + draw(string.ascii_uppercase + "234567", 16) for _ in range(4)),
    *("gh" + kind + "_" + draw(WORD, 36) for kind in "pousr"),
    "github" + "_pat_" + draw(WORD, 82),
    "gl" + "pat-" + draw(WORD, 20),
    "h" + "f_" + draw(string.ascii_letters, 34),
    "h" + "f_" + "".join(RANDOM.choices(string.ascii_letters, k=34)),  # no digit, as Hugging Face draws them
    *(
        prefix + draw(WORD, size)
        for prefix, size in (("gs" + "k_", 52), ("xa" + "i-", 80), ("ppl" + "x-", 48), ("r" + "8_", 37))
    ),
    "nva" + "pi-" + draw(WORD + "-_", 64),
    "GOC" + "SPX-" + draw(WORD + "-_", 28),
    "whs" + "ec_" + draw(WORD, 32),
    "dckr" + "_pat_" + draw(WORD + "-_", 27),
    "lin" + "_api_" + draw(WORD, 40),
    "gl" + "sa_" + draw(WORD, 32) + "_" + draw("abcdef0123456789", 8),
    *(prefix + draw("abcdef0123456789", size) for prefix, size in (("sb" + "p_", 40), ("shp" + "at_", 32))),
    "hooks.slack" + ".com/services/T01ABCDEFG/B01ABCDEFG/" + draw(WORD, 24),
    "discord" + ".com/api/webhooks/" + draw(string.digits, 18) + "/" + draw(WORD + "-_", 68),
    "np" + "m_" + draw(WORD, 36),
    "py" + "pi-AgEIcHlwaS5vcmc" + draw(WORD, 80),
    "xo" + "xb-" + draw(string.digits, 12) + "-" + draw(WORD, 24),
    *("AI" + "za" + draw(WORD + "-_", 35) for _ in range(2)),
    *("sk_" + mode + "_" + draw(WORD, 24) for mode in ("live", "test")),
    "S" + "G." + draw(WORD, 22) + "." + draw(WORD, 43),
    "dop" + "_v1_" + draw("abcdef0123456789", 64),
    draw("123456789", 9) + ":AA" + draw(WORD, 33),
    *("eyJhbGciOiJIUzI1NiJ9.eyJ" + draw(WORD, 40) + "." + draw(WORD + "-_", 43) for _ in range(3)),
    *(
        f"-----BEGIN {kind}PRIVATE KEY-----\n{draw(WORD, 64)}\n{draw(WORD, 64)}\n-----END {kind}PRIVATE KEY-----"
        for kind in ("", "RSA ", "EC ")
    ),
    f"-----BEGIN OPENSSH PRIVATE KEY-----\n{draw(WORD, 64)}",  # cut off by max_tokens
]
ASSIGNED: list[Callable[[], tuple[str, str]]] = [
    lambda: ('api_key = "{}"', draw(WORD, 32)),
    lambda: ("API_KEY={}", draw("abcdef0123456789", 40)),
    lambda: ('"client_secret": "{}"', draw(WORD + "-_~", 40)),
    lambda: ("AWS_SECRET_ACCESS_KEY={}", draw(WORD + "/+", 40)),
    lambda: ("password: {}", "Tr0ub4dor&3"),
    lambda: ("DB_PASSWORD='{}'", draw(WORD, 14)),
    lambda: ("access_token := {}", draw(WORD, 28)),
    lambda: ("Authorization: Bearer {}", draw(WORD, 40)),
    lambda: ("postgres://{}@db.example.com/app", "admin:" + draw(WORD, 12)),
    lambda: ("token => '{}'", draw(WORD, 24)),
]
FRAMES = {
    "email": ("Write to {} by Friday.", "({})", "contact: {}; office hours 9-17", "<{}>"),
    "phone": ("Questions? {} from 9:00 on.", "Ring me on {}.", "{}", "The hall on 12.05.2024: {}, room 214"),
    "iban": ("Pay 25.00 EUR to {}.", "IBAN {} BIC COBADEFF", "{}"),
    "card": ("Charged to {} on 05/24.", "card={}", "{}"),
    "secret": ("Use {} here.", "key: {}", "{}"),
}


def positives() -> list[tuple[str, str, str]]:
    """(kind, value, text)"""
    planted = []
    for kind, values in (("email", EMAILS), ("phone", PHONES), ("iban", IBANS), ("card", CARDS), ("secret", SECRETS)):
        for n, value in enumerate(values):
            frames = FRAMES[kind]
            for frame in {frames[n % len(frames)], frames[(n + 1) % len(frames)]}:
                planted.append((kind, value, frame.format(value)))
    for text in CALLED:
        first = min(text.index(c) for c in "+(0123456789" if c in text)
        planted.append(("phone", text[first:], text))
    for make in ASSIGNED:
        frame, value = make()
        planted.append(("secret", value, frame.format(value)))
    return planted


PLACES = ("town hall", "library", "Rose Street", "swimming pool", "market square", "bus line 14")


def negatives() -> list[str]:
    """Texts full of digits, at signs and hashes that name nobody and open nothing."""
    texts = [
        "Meeting on 12.05.2024 at 14:30 in room 214.",
        "this@MainActivity.finish() and super@Outer.foo, return@forEach.x, this@Foo.bar",
        "scores = Q@K.transpose(-2, -1); y = A@B.reshape(2, 3), Q@K.transpose, label@loop.next(), x@weights.dot(y)",
        "ISBN-10: 0735619670, EAN 5000159484695, barcode: 4012345678901",
        '{"id": "0612345678", "isbn": "0735619670", "gtin": "5000159484695", "order_id": "0612345678", "customer": "0651234567"}',
        "Order number: 0612345678, order number 0151 23456789, tracking: 0712345678, user id 0651234567",
        "Bestellnummer: 0151 23456789, Kundennr. 0151 23456789, Auftrags-Nr.: 0151 23456789",
        "numéro de commande : 0612345678, número de pedido: 0612345678, 订单号：0612345678, 注文番号: 0312345678",
        "aws_access_key_id = AKIAIOSFODNN7EXAMPLE, sk-proj-xxxxxxxxxxxxxxxxxxxx1234",
        "Cell. 2011;146(6):833-847. doi: 10.1016/j.cell.2011.11.012, 10.1016/j.cell.2020.05.0261",
        "scp -r results user@server-b.example.com:~/results and rsync bob@host.example.org:/srv/data",
        "Library book 3598899323053411, discard 213176828496175 pages",
        "Keep the pH 7.35-7.45 6.8-7.0 in cell 1 2 3 4 5 6 7.",
        "Sold by mobile: 1 200 000, by text lengths 128 256 512 1024, text: 128 256 512 1024.",
        "Phone sales 2019 2020 2021; phone: 2019/2020/2021; contact angle 10 20 30 40.",
        "Call option strike 100/105/110, call options: 100/105/110, ring sizes 110 112 114 116.",
        "postgresql://username:password@localhost/db, mongodb://<username>:<password>@host, ftp://user:pass@host",
        "https://x-access-token:${TOKEN}@github.com and https://user:{password}@host, redis://:YOUR_PASSWORD@cache",
        "Authorization: Bearer YOUR_ACCESS_TOKEN_HERE_PLEASE or Bearer xxxxxxxxxxxxxxxxxxxxxxxx",
        "Closed from 2024-05-12 to 2024-06-30, daily 08:00-17:00.",
        "Closed 2024-05-12 14:00 – 2024-05-13 09:30.",
        "Open 08.00-12.00 and 13.00-17.00; call before 05.12.2024.",
        "Phone lines are open 08.00 - 17.00 from 01.02.2024 to 03.04.2024.",
        "Call 2024-2025 season tickets in before 31.12.2024.",
        "The season 2023-2024, 2024/2025 and 2025-26.",
        "Rooms 101-105, 201-205 and 301-305 are repainted.",
        "The budget is 1 234 567 EUR, of which 345 678,90 is spent.",
        "It costs $1,234,567.89, or 0.123.456 of the total.",
        "Budget: €12.345.678,00; last year 11 987 654,32 €.",
        "Population 1 234 567 890 in 2020 and 1,345,678,901 in 2024.",
        "Version 1.2.3, build 20240512.1430, release 10.0.19045.3693.",
        "Upgrade from 2.13.0 to 2.14.1-rc.2+build.20240512.",
        "550e8400-e29b-41d4-a716-446655440000",
        "id 6ba7b810-9dad-11d1-80b4-00c04fd430c8 of request 9f86d081884c7d65",
        "commit 0123456789abcdef0123456789abcdef01234567",
        "md5 d41d8cd98f00b204e9800998ecf8427e, sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "ISBN 978-3-16-148410-0 and ISBN 0-306-40615-2, ISSN 2049-3630",
        "doi:10.1000/182, arXiv:1606.07947, RFC 7519",
        "server 192.168.100.200 and 10.0.0.255, mask 255.255.255.0, port 8080",
        "fe80::1ff:fe23:4567:890a, MAC 00:1A:2B:3C:4D:5E",
        "at 52.520008, 13.404954 (52°31'12\"N 13°24'18\"E)",
        "Order 0123456789 was shipped, invoice 2024-000123, ticket #0612345678.",
        "Account no. 00012345678, ref 0044512345, case 2024/05/000123",
        "1234567890123456 is not a card, nor is 4111 1111 1111 1112.",
        "Serial 4929 1234 5678 and part no. 5500-0000-0000",
        "Numbers: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        "0 1 0 1 1 0 1 0 0 1 1 1 0 1 0 1",
        "[0.12, 0.34, 0.56, 0.78, 0.91234567]",
        "3.14159265358979 and 2.718281828459045, 6.02214076e23",
        "2 + 2 = 4, 12345678 * 87654321 = 1082152022374638",
        "x = 0123 4567; y = 007",
        "Phone battery: 4000 mAh, 20 hours; 1080 x 2400 pixels",
        "The call lasted 1234567 ms.",
        "Text 160 characters, at most 1000 of 9999.",
        "DE89 3704 0044 0532 0130 01 has a wrong checksum",
        "GB00 ABCD 1234 5678 9012 34 and XX12 3456 7890 1234 5678",
        "AB12 CD34 EF56 GH78 is the voucher",
        "Follow @townhall and @rose_street on the square.",
        "npm install @scope/package@1.2.3 left-pad@1.3.0",
        "git clone git@github.com:example/project.git",
        "logo@2x.png icon@3x.svg user@localhost me@",
        "@app.route('/x') @pytest.fixture a@b @ 5.00",
        "meet @ 17:00 @ the market; 3 @ 2.50",
        "sk-learn, sk-SK locale, risk-averse-and-very-careful-people-at-work",
        "AKIA is a prefix, ghp_ is another, eyJ starts a token",
        "api_key = os.environ['OPENAI_API_KEY']",
        'api_key = "YOUR_API_KEY_HERE_1234567890"',
        "password = getpass.getpass()",
        "password: must be 8 characters or more, with 1 digit",
        "Password: ********",
        "token = tokenizer.encode(text, max_length=1024)",
        "max_tokens=1024, eos_token_id: 50256, pad_token=<|endoftext|>",
        "secret: the recipe has 12 herbs",
        "token: xxxxxxxxxxxxxxxxxxxxxxxx1",
        "secret_key = ${SECRET_KEY_2024_PRODUCTION}",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkq\n-----END CERTIFICATE-----",
        "https://example.com/a/0612345678/b?id=0123456789",
        "https://example.com:8080/user@home/1234567890",
        "Postal code 80331 München, 75001 Paris, SW1A 2AA London, 1010 Wien",
        "Winning numbers 03 11 17 24 38 45, extra 07",
        "Flight LH 0400 12 05 2024, seat 32A, gate 17, 06:55-09:10",
        "Track 1Z999AA10123456784 or 9400 1000 0000 0000 0000 00",
        "SSN-like 078-05-1120 is a form number here",
        "Size 10-12-14, 500-600-700, 1:50 000, 1/1000",
        "B0012345678, EAN 4006381333931, UPC 036000291452",
        "2024-05-12T14:30:00.000Z, 20240512T143000, epoch 1715524200",
        "Chapter 12.34.56.78, table 12-34-56",
    ]
    for n in range(150):
        day, month, place = 1 + n % 28, 1 + n % 12, PLACES[n % len(PLACES)]
        texts.append(
            (
                f"The {place} is closed from {day:02}.{month:02}.2024 to {day:02}.{month:02}.2025, {8 + n % 4}:00-{14 + n % 6}:30, room {100 + 7 * n}.",
                f"{place}: works on {month}/{day}/2024, budget {n + 1} {n * 37 % 900 + 100} {n * 53 % 900 + 100} EUR, permit no. 0{n * 7919 + 1000000}.",
                f"On 2024-{month:02}-{day:02} {n + 1000} visitors paid ${n * 3.5:.2f} each at the {place}; total {n * 12345 + 1000000}.",
                f"Version {n % 5}.{n % 13}.{n} of the plan for the {place}, {day:02}/{month:02}/2024 {n % 24:02}.{n % 60:02}, pages {n + 100}-{n + 112}.",
                f"Notice {2024000 + n}/{month:02}: seats {n + 1}-{n + 40} at the {place}, {day:02}-{month:02}-2024, 0{month}.{n % 60:02} to 1{month % 10}.{n % 60:02}.",
            )[n % 5]
        )
    return texts


def test_planted_values_are_found_whole_and_by_their_kind() -> None:
    planted = positives()
    assert len(planted) >= 200
    missed = [
        (kind, text)
        for kind, value, text in planted
        if not any(f.kind == kind and _same(text[f.start : f.end], value) for f in find(text))
    ]
    assert len(missed) <= 0.01 * len(planted), missed


def _same(found: str, value: str) -> bool:
    return found.strip("()") == value.strip("()")


def test_numbers_dates_hashes_and_code_are_left_alone() -> None:
    texts = negatives()
    assert len(texts) >= 200
    wrong = [(text, text[f.start : f.end]) for text in texts for f in find(text)]
    assert len(wrong) <= 0.01 * len(texts), wrong


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Fax: 345-899-3560x4587", "phone", "+13458993560"),
        ("Desk: +1-903-140-4508x769", "phone", "+19031404508"),
        ("Please block card no 213175197796454", "card", "213175197796454"),
        ("my credit card number is 3598899323053410?", "card", "3598899323053410"),
        ("Meine Kreditkarte: 180016070420458", "card", "180016070420458"),
        ("Mail anna@server-b.example.com: it is free.", "email", "anna@server-b.example.com"),
    ],
)
def test_a_word_before_it_or_an_extension_behind_it_tells_what_a_number_is(text: str, kind: str, value: str) -> None:
    assert [(found.kind, found.value) for found in find(text)] == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "936 + 312 + 312 = 1560",
        "936+312+312=1560",
        "total: + 312 + 312 1560",
        "1200 + 3400 + 5600",
        "x = 030 + 12345678",
        "200-300-4000 = -4100",
        "5 + 6123 4567 = 61234572",
        "12 * 415-555-2671",
        "2 + 49 30 1234567",
        "We call 936 + 312 + 3125 the sum.",
        "936 + 312 +312 4567",
        "+ 1 234 567 890 people",
        "100 + 1 415 555 2671",
        "(200) 300-4000 + 4",
        "0 + 1234567890",
        "030 12345678 × 2",
    ],
)
def test_sums_are_no_phone_numbers(text: str) -> None:
    assert find(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "Tel. +49 30 123456",
        "phone = 415-555-2671",
        "Call (415) 555-2671.",
        "or +49 (0)30 123456 now",
        "WhatsApp: +1 415 555 2671",
        "Customer: 0151 23456789",
        "Client: 06 12 34 56 78",
        "Contact no.: 0151 23456789",
    ],
)
def test_a_number_that_is_dialled_stays_one(text: str) -> None:
    assert [found.kind for found in find(text)] == ["phone"]


def test_what_stands_around_a_planted_value_is_not_taken_for_more() -> None:
    planted = positives()
    more = [(text, found) for kind, _, text in planted if len(found := find(text)) > 1]
    assert len(more) <= 0.01 * len(planted), more


def sample(prompt: str, completion: str, **keys: Any) -> Sample:
    messages = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": prompt}]
    return replace(filter_runs.sample(prompt, completion, **keys), prompt=messages)


def test_a_value_has_one_placeholder_on_both_sides_however_it_is_spelt() -> None:
    before = sample(
        "Mail bob@example.org or Anna@Example.com, ring (212) 555-0143, pay DE89370400440532013000.",
        "Anna (anna@example.com, +1 212-555-0143) wants DE89 3704 0044 0532 0130 00, not eve@example.net.",
        reference="anna@example.com",
        reasoning="bob@example.org is someone else",
    )
    after, counts = mask(before)
    assert after.prompt[1]["content"] == "Mail [EMAIL_1] or [EMAIL_2], ring [PHONE_1], pay [IBAN_1]."
    assert after.text == "Anna ([EMAIL_2], [PHONE_1]) wants [IBAN_1], not [EMAIL_3]."
    assert (after.reference, after.reasoning) == ("[EMAIL_2]", "[EMAIL_1] is someone else")
    assert counts == {"email": 3, "iban": 1, "phone": 1} == count(before)
    assert (after.id, after.prompt_id, after.prompt[0]) == (before.id, before.prompt_id, before.prompt[0])


def test_samples_of_one_prompt_call_its_values_the_same() -> None:
    prompt = "From a@example.com to b@example.com"
    first, _ = mask(sample(prompt, "b@example.com, c@example.com"))
    second, _ = mask(sample(prompt, "d@example.com, a@example.com"))
    assert first.prompt == second.prompt
    assert (first.text, second.text) == ("[EMAIL_2], [EMAIL_3]", "[EMAIL_3], [EMAIL_1]")


def test_masking_twice_changes_nothing_and_placeholders_already_there_are_not_reused() -> None:
    once, _ = mask(sample("Write [EMAIL_1] to a@example.com", "a@example.com"))
    assert once.prompt[1]["content"] == "Write [EMAIL_1] to [EMAIL_2]"
    assert mask(once) == (once, {})


def test_every_planted_value_is_gone_after_masking() -> None:
    for kind, value, text in positives():
        masked, counts = mask(sample(text, text))
        assert kind in counts, text
        assert value.strip("()") not in masked.text, text
        assert masked.text == masked.prompt[1]["content"]


def test_a_sample_without_personal_data_is_the_same_object() -> None:
    clean = sample("When?", "On 12.05.2024 at 14:30 in room 214.")
    assert mask(clean)[0] is clean
    assert count(clean) == {}


def test_no_value_stands_in_a_reason_or_in_what_is_printed_of_a_finding() -> None:
    for _, value, text in positives():
        found = find(text)
        assert value not in reason(count(sample(text, ""))) + repr(found)
        assert set(count(sample(text, ""))) <= set(KINDS)
    assert reason({"email": 2, "phone": 1}) == "2 email, 1 phone"
    assert "value" in asdict(Finding("email", 0, 1, "x"))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("邮箱anna@example.com联系，或QQ邮箱12345678@example.com。", ["anna@example.com", "12345678@example.com"]),
        ("メールはanna@example.comまで", ["anna@example.com"]),
        ("메일은 anna@example.com으로 보내주세요", ["anna@example.com"]),
        ("ส่งอีเมลanna@example.comได้", ["anna@example.com"]),
        ("请发邮件到" * 20 + "anna@example.com" + "获取更多信息" * 10, ["anna@example.com"]),
        ("田中@例え.jp, иван1@почта.рф", ["田中@例え.jp", "иван1@почта.рф"]),
        ("https://example.com/login?email=anna%40example.com&x=1", ["anna%40example.com"]),
        ("GET /users/anna@example.com/inbox", ["anna@example.com"]),
        ("ssh://git@github.com/example/project", []),
        # what JSON and code write for a line break or a quotation mark
        (r'{"text": "Contact:\nanna@example.com\t0612345678"}', ["anna@example.com", "0612345678"]),
        (r'{"code": "api_key = \"a1B2c3D4e5F6g7H8i9J0\"\n"}', ["a1B2c3D4e5F6g7H8i9J0"]),
    ],
)
def test_a_value_ends_where_another_script_or_an_escape_begins(text: str, values: list[str]) -> None:
    assert [text[f.start : f.end] for f in find(text)] == values


def test_regions_decide_which_national_numbers_count() -> None:
    assert [f.kind for f in find("06 12 34 56 78", ["FR"])] == ["phone"]
    assert find("06 12 34 56 78", ["US"]) == []
    assert [f.kind for f in find("+33 6 12 34 56 78", ["US"])] == ["phone"]


@pytest.mark.parametrize(
    "unit",
    ["1 ", "0", "a@", "a.", "+1(", "sk-", "key=", "password:", "GB00 ", "06 12 34 56 ", "bel ", "(", "://a:", "4-", "eyJ."],
)
def test_hostile_text_costs_time_in_proportion_to_its_length(unit: str, record_property: Callable[[str, object], None]) -> None:
    text = unit * (200_000 // len(unit)) + "@1"
    record_property("found", len(find(text)))  # quadratic patterns would hang here for minutes
