"""Good rows in the shapes that real data has: chat, code, other languages, labels, JSON, maths. Made by rule, all different.

Every row is one that a person would keep. What a filter takes of them is a false reject.
"""

import itertools
import json
import random
from collections.abc import Callable, Iterator

from filter_runs import sample

from seqdistill.records import Sample

FENCE = "```"
TOPICS = [
    "sourdough bread",
    "bicycle brakes",
    "tomato plants",
    "a home network",
    "old photographs",
    "a job interview",
    "knee pain after running",
    "a cat that does not eat",
    "house insurance",
    "learning the piano",
    "a leaking tap",
    "composting in winter",
    "solar panels",
    "moving abroad",
    "a first marathon",
    "bird watching",
    "public speaking",
    "a wedding speech",
    "tax returns",
    "chess openings",
    "growing herbs",
    "night photography",
    "a noisy neighbour",
    "saving for a house",
    "teaching fractions",
    "a broken zip",
    "coffee grinders",
    "hiking boots",
    "sleep in hot weather",
    "a school play",
]
POINTS = [
    "start small and write down what you change",
    "ask someone who has done it before",
    "keep the receipts, as you may need them later",
    "check the weather two days ahead",
    "leave more time than you think you need",
    "clean everything first, then measure twice",
    "compare at least three offers",
    "read the fine print, above all the part about notice periods",
    "take a break every half hour",
    "use less water than the recipe says",
    "replace the worn part instead of repairing it",
    "tell the others what you plan",
    "do the hard part in the morning",
    "store it in a cool, dark place",
    "test it on a small area first",
    "set a limit and keep to it",
    "warm up slowly",
    "note the serial number",
    "listen more than you talk",
    "do not buy the cheapest one",
]
OPENERS = [
    "Here are some tips for {}:",
    "Great question! {} can be tricky, but it is manageable.",
    "Sure! Let's look at {}.",
    "When it comes to {}, a few things matter most.",
    "I'd begin with the basics of {}.",
    "There are several ways to approach {}.",
    "Certainly! Below is a short guide to {}.",
    "Thanks for asking about {}.",
    "Of course. For {}, I would do this:",
]
ASKS = "How do I get started with {}?|Give me advice on {}.|What should I know about {}?|Help me with {}, please.|I need a plan for {}."


def chat(rng: random.Random) -> tuple[str, str]:
    topic, points = rng.choice(TOPICS), rng.sample(POINTS, 5)
    number = rng.randint(2, 90)
    match rng.randrange(6):
        case 0:
            body = "\n".join(f"- **Step {n}:** {point}" for n, point in enumerate(points, 1))
        case 1:
            body = "\n".join(f"{n}. {point.capitalize()}." for n, point in enumerate(points, 1))
        case 2:
            rows = "\n".join(f"| {point} | {rng.choice(('yes', 'no', 'maybe'))} | {rng.randint(1, 99)} |" for point in points)
            body = f"| What | Needed | Minutes |\n| --- | --- | ---: |\n{rows}"
        case 3:
            body = f"Dear {{{{ name }}}},\n\n{'. '.join(point.capitalize() for point in points)}.\n\nKind regards,\n{{{{ sender }}}}"
        case 4:
            body = f"<p>It was <s>{number} euros</s> {number - 1} euros.</p>\n<ul>\n" + "\n".join(
                f"  <li>{p}</li>" for p in points
            )
        case _:
            body = f"{'. '.join(point.capitalize() for point in points)}. I can't stress the {rng.choice(points)} part enough."
    ask = f"{rng.choice(ASKS.split('|')).format(topic)} I was told: {rng.choice(POINTS)}."
    return ask, f"{rng.choice(OPENERS).format(topic)}\n\n{body}"


NAMES = [
    "users",
    "orders",
    "tokens",
    "lines",
    "prices",
    "scores",
    "nodes",
    "files",
    "events",
    "items",
    "paths",
    "words",
    "rates",
    "cells",
    "jobs",
]
ACTS = [
    "count",
    "merge",
    "sort",
    "filter",
    "parse",
    "group",
    "flatten",
    "invert",
    "sample",
    "hash",
    "split",
    "rotate",
    "clamp",
    "index",
    "chunk",
]


def code(rng: random.Random) -> tuple[str, str]:
    name, act, other, number = rng.choice(NAMES), rng.choice(ACTS), rng.choice(NAMES), rng.randint(2, 999)
    point, topic = rng.choice(POINTS), rng.choice(TOPICS)
    ask = rng.choice(("Write", "Show me", "I need", "Please write"))
    match rng.randrange(8):
        case 0:
            body = (
                f"#include <iostream>\n#include <vector>\n\nint {act}_{name}(const std::vector<int>& {name}) {{\n    int total = {number};\n"
                f"    for (int one : {name}) {{\n        total += one;\n    }}\n    return total;\n}}  // {point}"
            )
            return f"{ask} a C++ function that will {act} {name}, with {number} as a base, for {topic}.", body
        case 1:
            body = f'def {act}_{name}({name}, {other}={number}):\n    """{point.capitalize()}."""\n    return [one for one in {name} if one > {other}]'
            return (
                f"{ask} Python code to {act} {name} over {number} ({topic}).",
                f"{FENCE}python\n{body}\n{FENCE}\n\n{point.capitalize()}.",
            )
        case 2:
            steps = "\n".join(f"      - name: {act} {n}\n        run: make {n}" for n in rng.sample(NAMES, 4))
            text = f"{FENCE}yaml\non: push\njobs:\n  {name}:\n    env:\n      KEY: ${{{{ secrets.{act.upper()}_{number} }}}}\n    steps:\n{steps}\n{FENCE}"
            return f"{ask} a workflow for {topic} that will {act} {name} with secret {number}.", text
        case 3:
            lines = "\n".join(f"-    {n}.{act}({number})\n+    {n}.{act}({number}, {other})" for n in rng.sample(NAMES, 3))
            text = f"{FENCE}diff\n--- a/{name}.py\n+++ b/{name}.py\n@@ -{number},7 +{number},7 @@\n{lines}\n{FENCE}"
            return f"{ask} a patch: {act} needs {other} in {name}.py, line {number}, in the {topic} project.", text
        case 4:
            text = f"SELECT {name}, COUNT(*) AS {act}\nFROM {other}\nWHERE id > {number}\nGROUP BY {name}\nORDER BY {act} DESC; -- {point}"
            return f"{ask} SQL that can {act} {other} by {name} with an id over {number} ({topic}).", text
        case 5:
            fields = "\n".join(
                f"    private int {n};\n\n    public int get{n.title()}() {{\n        return {n};\n    }}\n"
                for n in rng.sample(NAMES, 5)
            )
            return (
                f"{ask} a Java class {act.title()}{number} with getters, for {topic}.",
                f"public class {act.title()}{number} {{\n{fields}}}",
            )
        case 6:
            rows = "\n".join(", ".join(str(rng.randint(0, 1)) for _ in range(12)) for _ in range(8))
            return (
                f"{ask} a {number} matrix of {name} to {act}, {topic}.",
                f"{FENCE}\n{rows}\n{FENCE}\nIt has {number} as its seed.",
            )
    text = f"Run `npm run {act}`, then set `{name}[{number}]`. In Jinja write `{{% if {name} %}}` and `{{{{ {other} }}}}`; {point}."
    return f"How do I {act} {name} number {number} in a template about {topic}?", text


PLACES = ["北京", "上海", "广州", "成都", "西安", "杭州", "南京", "武汉", "重庆", "苏州", "厦门", "昆明"]
THINGS = ["图书馆", "博物馆", "地铁", "公园", "火车站", "大学", "老街", "茶馆", "市场", "湖边"]
REASONS = [
    "历史悠久",
    "风景优美",
    "交通方便",
    "人很热情",
    "价格合理",
    "适合散步",
    "值得一去",
    "周末人多",
    "建筑独特",
    "附近有很多小吃",
]
THAI = [
    "ร้านกาแฟเปิดทุกวัน",
    "สวนสาธารณะเงียบสงบ",
    "ตลาดน้ำคนเยอะมาก",
    "พิพิธภัณฑ์ปิดวันจันทร์",
    "รถไฟฟ้าสะดวกที่สุด",
    "วัดนี้สวยงามมาก",
    "ทะเลอยู่ไม่ไกล",
]
ARABIC = [
    "المكتبة مفتوحة كل يوم",
    "السوق مزدحم في المساء",
    "المتحف مغلق يوم الاثنين",
    "الحديقة هادئة وجميلة",
    "القطار أسرع من الحافلة",
    "البحر ليس بعيدا",
]
JAPANESE = [
    "図書館は毎日開いています",
    "公園はとても静かです",
    "電車が一番便利です",
    "月曜日は休館日です",
    "海は遠くありません",
    "市場は朝が一番です",
]


def languages(rng: random.Random) -> tuple[str, str]:
    place, thing, number = rng.choice(PLACES), rng.choice(THINGS), rng.randint(2, 400)
    said = "，".join(rng.sample(REASONS, 4))
    topic, points = rng.choice(TOPICS), rng.sample(POINTS, 3)
    match rng.randrange(8):
        case 0:
            return (
                f"请介绍一下{place}的{thing}，编号{number}。",
                f"{place}的{thing}{said}。门票{number}元，建议{rng.choice(REASONS)}的时候去。",
            )
        case 1:
            return (
                f"{place}{thing}怎么样？{number}字以内。",
                f"{thing}是{place}的名片：{said}。\n\n1. {rng.choice(REASONS)}\n2. 大约需要{number}分钟",
            )
        case 2:
            body = f"def {rng.choice(ACTS)}_{rng.choice(NAMES)}(x):\n    return x + {number}  # {said}"
            return f"用Python写一个函数，返回x加{number}，用于{place}{thing}。", f"{FENCE}python\n{body}\n{FENCE}"
        case 3:
            return (
                f"把下面的话翻译成英文：{place}的{thing}{said}，{number}元。",
                f"It costs {number} yuan there. About {topic}: {points[0]}, and {points[1]}.",
            )
        case 4:
            a, b, c = rng.sample(THAI, 3)
            return f"เล่าเรื่องที่ {number} เกี่ยวกับ{rng.choice(THAI)}", f"{a} {b} และ{c} ค่าเข้า {number} บาท"
        case 5:
            a, b, c = rng.sample(ARABIC, 3)
            return f"اكتب الجملة رقم {number} عن: {rng.choice(ARABIC)}", f"{a}. {b}، و{c}. السعر {number} دينار."
        case 6:
            a, b, c = rng.sample(JAPANESE, 3)
            return (
                f"{number}番目の場所について教えてください。{rng.choice(JAPANESE)}。",
                f"{a}。{b}。そして、{c}。料金は{number}円です。",
            )
    return f"Translate into Russian, note {number} on {topic}: {points[0]}.", f"Заметка {number}: " + rng.choice(
        (
            "сначала всё запишите, потом проверьте ещё раз",
            "спросите того, кто уже это делал",
            "не берите самое дешёвое",
            "оставьте больше времени",
        )
    )


LABELS = ["billing", "shipping", "returns", "None of the above", "technical problem", "praise"]


def labels(rng: random.Random) -> tuple[str, str]:
    text = f"{rng.choice(POINTS).capitalize()}, they said, but {rng.choice(TOPICS)} is why I write; {rng.choice(POINTS)}. Case {rng.randint(1, 9999)}"
    match rng.randrange(4):
        case 0:
            return f"Which team gets this? {text}", rng.choice(LABELS)
        case 1:
            return f"正面还是负面？{text}", rng.choice(("正面", "负面", "中性", "positive", "negative"))
        case 2:
            return f"Answer with yes or no: is this urgent? {text}", rng.choice(("Yes", "No", "Yes.", "No."))
    return f"Pick A, B, C or D. {text}\nA) sue\nB) wait\nC) call\nD) none of these", rng.choice("ABCD")


def records(rng: random.Random) -> tuple[str, str]:
    topic, number = rng.choice(TOPICS), rng.randint(1, 9999)
    value = {
        "topic": topic,
        "id": number,
        "urgent": rng.random() < 0.5,
        "steps": [{"text": point, "type": "string", "required": True} for point in rng.sample(POINTS, 4)],
    }
    text = json.dumps(value, indent=rng.choice((None, 2)))
    return (
        f"As JSON: case {number} is about {topic}; {rng.choice(POINTS)}.",
        text if rng.random() < 0.7 else f"{FENCE}json\n{text}\n{FENCE}",
    )


def maths(rng: random.Random) -> tuple[str, str]:
    a, b, c, thing = rng.randint(3, 999), rng.randint(3, 999), rng.randint(2, 9), rng.choice(NAMES)
    ask = f"There are {a} {thing} and {b} more come, {c} times over; what is the sum? ({rng.choice(TOPICS)})"
    match rng.randrange(4):
        case 0:
            return ask, f"{a} + {b} * {c} = {a} + {b * c} = {a + b * c}\n#### {a + b * c}"
        case 1:
            return (
                ask,
                rf"We have $x = {a} + {c} \cdot {b} = {a + b * c}$, so \boxed{{{a + b * c}}}. Note that $\frac{{{a}}}{{{b}}} < {c}^2$ need not hold.",
            )
        case 2:
            return ask, f"First, {a} stay. Then {b} × {c} = {b * c}. So there are **{a + b * c} {thing}** in all."
    return f"{ask} 请用中文回答。", f"先算{b}乘{c}，得{b * c}；再加{a}，一共{a + b * c}。"


KINDS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "chat": chat,
    "code": code,
    "other languages": languages,
    "labels": labels,
    "JSON": records,
    "maths": maths,
}


def good_rows(kind: str, count: int) -> list[Sample]:
    """`count` rows of one kind, no prompt twice."""
    return list(itertools.islice(_different(KINDS[kind], random.Random(kind)), count))


def _different(make: Callable[[random.Random], tuple[str, str]], rng: random.Random) -> Iterator[Sample]:
    seen: set[str] = set()
    while True:
        prompt, completion = make(rng)
        if prompt not in seen:
            seen.add(prompt)
            yield sample(prompt, completion)
