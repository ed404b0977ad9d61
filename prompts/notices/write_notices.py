"""Writes the demo task's data, prompts.jsonl and test.jsonl, beside this file: `python write_notices.py`.

A notice is drawn from a frame: a place, what is known about it, a reason, a time, what to do, and a gold sentence made of the
same facts. The news is never in the first words (the reason or the background does), so copying the start is no summary.
Slices: `normal`; `hard` (with a distractor: news that is none); `critical` (safety: a sentence that loses the place, the time
or what to do does harm). A pair of place and reason is used once over both files, so no test pair is trained on. The same
bytes come out of every run. The teacher's answers are not here: `seqdistill generate` gets them.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

SEED = 7
TEST = {"normal": 48, "hard": 36, "critical": 36}
PROMPTS = {"normal": 216, "hard": 84, "critical": 100}
BATCHES = 2  # of PROMPTS; a further one leaves those before it as they are


@dataclass(frozen=True)
class Frame:
    """One kind of news. Alternatives are separated by "|"; words in {braces} are filled from `draw_facts`."""

    kinds: str  # the place is "the {name} KIND"
    background: str  # said of the place, and not the news
    reasons: str
    news: str  # said of the place
    whens: str
    extras: dict[str, str]  # sentence in the notice: clause in the gold sentence


NAMES = (
    "Alder Lane|Ashby|Barrow Hill|Bellfield|Birch Street|Canal Side|Castle Road|Cedar Park|Church End|Clayton|Copper Row|"
    "Dove Street|Eastgate|Elm Grove|Fairmile|Ferry Road|Fox Hollow|Garden Way|Granby|Harwell|Hazel Bank|Holm Street|"
    "Ivy Lane|Kestrel Road|King Street|Lark Rise|Long Acre|Mill Lane|Millbrook|Moor End|Northfield|Oak Avenue|Orchard Way|"
    "Park View|Priory Road|Quarry Hill|Redcliff|Riverside|Rowan Close|Saddler Street|Southmead|Station Road|Thornton|"
    "Tower Hill|Union Street|Valley Road|Wells Lane|Westbrook|Willow Court|Yarrow Street"
)
SPAN = "from {first} to {last}"

NORMAL = (
    Frame(
        kinds="library|swimming pool|museum|sports hall",
        background="opened in {year}|has {hundreds} visitors a week|was rebuilt in {year}|is run by {few} volunteers",
        reasons="a burst pipe|a broken boiler|asbestos in the ceiling|a full rewiring|mould behind the walls|a damaged roof",
        news="will be closed|will stay closed",
        whens=f"{SPAN}|until {{last}}",
        extras={
            "Visitors may use the {other} branch instead.": "visitors may use the {other} branch",
            "Season tickets will be extended by {few} days.": "season tickets will be extended by {few} days",
            "Bookings for those days will be refunded.": "bookings will be refunded",
        },
    ),
    Frame(
        kinds="bridge|underpass|ring road|car park",
        background="links the station with the old town|was widened in {year}|carries {hundreds} cars a day",
        reasons="resurfacing work|a collapsed drain|new gas mains|tree felling|the laying of cables|a film shoot",
        news="will be closed to traffic|will be closed to all cars",
        whens=f"{SPAN}|on {{first}} from {{morning}} to {{evening}}",
        extras={
            "Drivers should follow the signs along {other}.": "drivers should go along {other}",
            "Pedestrians can still get through.": "pedestrians can still get through",
            "Parked cars must be moved by {morning}.": "parked cars must be moved by {morning}",
        },
    ),
    Frame(
        kinds="school bus|night bus|shuttle bus|ferry",
        background="carries {hundreds} people a week|has run since {year}|is older than the tram",
        reasons="a shortage of drivers|roadworks in the centre|a lack of passengers|a new timetable|the spring marathon",
        news="will run only once an hour|will leave {many} minutes earlier",
        whens=f"{SPAN}|from {{first}}",
        extras={
            "The stop at {other} will not be served.": "the stop at {other} will not be served",
            "Monthly passes stay valid on the tram.": "monthly passes stay valid on the tram",
        },
    ),
    Frame(
        kinds="farmers' market|flea market|craft fair|lantern walk|summer concert|book sale",
        background="drew {hundreds} people last year|began in {year}|is now in its {many}th year",
        reasons="strong winds|flooding of the field|repairs to the square|a visit by the circus|a double booking",
        news="will be moved to the {other} hall|will be held at the {other} school",
        whens="on {first}",
        extras={
            "Doors open at {morning}.": "doors open at {morning}",
            "Tickets cost {few} pounds at the door.": "tickets cost {few} pounds at the door",
            "Dogs are welcome on a lead.": "dogs are welcome on a lead",
        },
    ),
    Frame(
        kinds="council meeting|residents' forum|planning hearing|school board meeting",
        background="was first called in {year}|concerns {hundreds} households|takes place {few} times a year",
        reasons="illness of the chair|the elections|missing papers|heavy snow|a fault in the heating",
        news="will be postponed",
        whens="to {first} at {evening}",
        extras={
            "It will take place in the {other} hall.": "it will take place in the {other} hall",
            "Questions can be sent in until {before}.": "questions can be sent in until {before}",
        },
    ),
    Frame(
        kinds="recycling collection|glass collection|garden waste collection|rubbish collection",
        background="serves {hundreds} households|has been weekly since {year}",
        reasons="the public holiday|a strike at the depot|icy roads|a lorry breakdown|a new contract",
        news="will be moved",
        whens="to {first}",
        extras={
            "Bins must be at the kerb by {morning}.": "bins must be at the kerb by {morning}",
            "Up to {few} extra bags will be taken for free.": "up to {few} extra bags will be taken for free",
        },
    ),
)

CRITICAL = (
    Frame(
        kinds="estate|district|village|valley",
        background="has {hundreds} households|lies on the river|has grown since {year}",
        reasons="bacteria in a sample|a broken main|a failed pump|sewage in the reservoir|a chlorine fault|flood water",
        news="must boil all tap water|will have no safe tap water",
        whens=f"until {{last}}|{SPAN}",
        extras={
            "Free bottled water is given out at the {other} school.": "free bottled water is given out at the {other} school",
            "Babies must be given bottled water only.": "babies must be given bottled water only",
        },
    ),
    Frame(
        kinds="estate|school|care home|hospital",
        background="was built in {year}|lies below the dam|is home to {hundreds} people",
        reasons="a gas leak|an unexploded bomb|a chemical spill|a fire at the paint works|a cracked dam|rising flood water",
        news="will be evacuated|must be evacuated",
        whens="on {first} at {evening}|on {first} by {evening}",
        extras={
            "A shelter is open at the {other} sports hall.": "a shelter is open at the {other} sports hall",
            "Anyone who needs help to leave should call {phone}.": "anyone who needs help to leave should call {phone}",
            "Lifts and light switches must not be used.": "lifts and light switches must not be used",
        },
    ),
    Frame(
        kinds="lake|beach|pond|bathing pier",
        background="is loved by swimmers|drew {hundreds} bathers last year|has been open since {year}",
        reasons="toxic algae|a sewage overflow|broken glass|an oil spill|strong currents",
        news="will be closed to swimmers|is not safe for swimming",
        whens=f"until {{last}}|{SPAN}",
        extras={
            "Dogs must be kept out of the water.": "dogs must be kept out of the water",
            "Anyone who feels ill should call {phone}.": "anyone who feels ill should call {phone}",
        },
    ),
    Frame(
        kinds="nut bread|soft cheese|egg salad|oat milk",
        background="is sold in {few} shops|has been made since {year}",
        reasons="a listeria find|a salmonella find|metal splinters|a labelling error|traces of bleach",
        news="will be recalled from all shops|will be taken off sale",
        whens="on {first}|from {first}",
        extras={
            "Shops will pay back the price.": "shops will pay back the price",
            "Anyone with symptoms should call {phone}.": "anyone with symptoms should call {phone}",
        },
    ),
)

DISTRACTORS = (
    "The {third} fete raised {hundreds} pounds.|Work on the {third} clock tower goes on as planned.|"
    "The photo contest at {third} runs all year.|The {third} choir sings every Friday."
)


def draw_facts(rng: random.Random, frame: Frame) -> dict[str, str]:
    """Everything a notice may mention: the place, other places, the reason, days in order, times, numbers."""
    name, other, third = rng.sample(NAMES.split("|"), 3)
    first = date(2026, 1, 5) + timedelta(days=rng.randrange(330))
    days = {"before": -rng.randrange(3, 12), "first": 0, "last": rng.randrange(2, 20)}
    facts = {"other": other, "third": third, "reason": rng.choice(frame.reasons.split("|"))}
    for key, shift in days.items():
        day = first + timedelta(days=shift)
        facts[key] = f"{day.day} {day:%B}"
    return facts | {
        "place": f"the {name} {rng.choice(frame.kinds.split('|'))}",
        "morning": f"{rng.randrange(6, 11)} am",
        "evening": f"{rng.randrange(4, 9)} pm",
        "phone": f"555 0{rng.randrange(100, 200)}",
        "few": str(rng.randrange(3, 10)),
        "many": str(rng.randrange(14, 20)),
        "hundreds": str(rng.randrange(20, 90) * 10),
        "year": str(rng.randrange(1950, 2020)),
    }


def write(rng: random.Random, frame: Frame, facts: dict[str, str], slice_name: str) -> dict[str, str]:
    """One row: the notice, its gold sentence, its slice."""
    background, news, when = (rng.choice(text.split("|")) for text in (frame.background, frame.news, frame.whens))
    news = f"{news} {when}"
    extra = rng.choice(list(frame.extras))
    distractor = rng.choice(DISTRACTORS.split("|"))
    reason_first = f"Because of {{reason}}, {{place}}, which {background}, {news}."
    if slice_name == "hard":
        parts = rng.choice(([distractor, reason_first, extra], [reason_first, distractor, extra]))
    else:
        parts = [reason_first, extra]
    because = rng.choice(("because of", "owing to", "due to"))
    gold = rng.choice((f"{{place}} {news} {because} {{reason}}", f"{because} {{reason}}, {{place}} {news}"))
    gold = f"{gold}, and {frame.extras[extra]}."
    notice = " ".join(_capital(part.format(**facts)) for part in parts)
    return {"prompt": notice, "reference": _capital(gold.format(**facts)), "slice": slice_name}


def notices() -> Iterator[tuple[str, int, dict[str, str]]]:
    """Every (file, batch, row), the test rows first."""
    rng = random.Random(SEED)
    used: set[tuple[str, str]] = set()
    for batch, (file, counts) in enumerate((("test.jsonl", TEST), *[("prompts.jsonl", PROMPTS)] * BATCHES)):
        for slice_name, count in counts.items():
            frames = CRITICAL if slice_name == "critical" else NORMAL
            for number in range(count):
                frame = frames[number % len(frames)]
                facts = draw_facts(rng, frame)
                while (pair := (facts["place"], facts["reason"])) in used:
                    facts = draw_facts(rng, frame)
                used.add(pair)
                yield file, batch, write(rng, frame, facts, slice_name)


def files() -> dict[str, list[str]]:
    """The lines of both files, each batch in an order of its own."""
    batches: dict[tuple[str, int], list[str]] = {}
    for file, batch, row in notices():
        batches.setdefault((file, batch), []).append(json.dumps(row) + "\n")
    found: dict[str, list[str]] = {}
    for (file, _), lines in batches.items():
        random.Random(SEED).shuffle(lines)
        found.setdefault(file, []).extend(lines)
    return found


def main() -> None:
    """Writes both files."""
    for file, lines in files().items():
        (Path(__file__).parent / file).write_text("".join(lines), encoding="utf-8")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


if __name__ == "__main__":
    main()
