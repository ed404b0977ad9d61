"""Slips into another language or writing system, and changes of it that were meant. A line a case."""

import pytest

from seqdistill.stages.filter.checks.languages import may_change_language, may_change_script, script, slips

RUSSIAN, JAPANESE = "Крыша защищает дом от дождя и снега.", "屋根は家を雨や雪から守ります。"
ENGLISH = "A roof protects the house from rain and snow all year."
BRIDGE = "The harbour bridge was opened in the spring of last year after a long period of works and repairs. " * 25
OPENED = "大桥是由市长在春天剪彩的，工程师们也出席了仪式，现场还有许多市民参加，气氛十分热烈。"
CHANGES = [  # prompt, completion, whether the change of the writing system may well be meant
    ("What is a roof good for?", RUSSIAN, False),
    ("What is a roof good for?", JAPANESE, False),
    ("屋根は何の役に立ちますか？", ENGLISH, False),
    ("Translate into Russian: A roof is good.", RUSSIAN, True),
    ("How do you say it in Japanese?", JAPANESE, True),
    ("把这句话翻译成英文：屋顶保护房子。", ENGLISH, True),
    ("次の文を英語に訳してください：屋根は家を守る。", ENGLISH, True),
    ("Переведи на английский: крыша", ENGLISH, True),
    ("Summarise this: " + JAPANESE, JAPANESE, True),
    ("这条评论是正面还是负面的？", "positive", True),
    (
        "写一个判断质数的函数。",
        "```python\ndef is_prime(number):\n    return all(number % other for other in range(2, number))\n```",
        True,
    ),
    *(
        (prompt, text, True)
        for prompt, text in (
            (
                "编写一个函数来计算斐波那契数列。",
                "def fib(n):\n    if n <= 1:\n        return n\n    return fib(n - 1) + fib(n - 2)",
            ),
            (
                "写一个判断质数的函数。",
                'def is_prime(n):\n    """Return whether the number is a prime number."""\n    # check all of the numbers\n'
                "    return all(n % other for other in range(2, n))",
            ),
            (
                "Напиши функцию, которая печатает сумму.",
                'print("please enter the first of the numbers")\nvalue = int(input())\ntotal += value',
            ),
            (
                "写一个查询，找出工资最高的员工。",
                "SELECT name, salary FROM employees WHERE department = 'Sales' ORDER BY salary DESC LIMIT 1;",
            ),
            (
                "写一个查询，找出工资最高的员工。",
                "select name from employees where salary is not null order by salary desc limit 1",
            ),
            ("Как установить Docker?", "sudo apt install docker compose plugin buildx\nsudo systemctl enable docker"),
            ("列出十种编程语言。", "Python, Java, C++, JavaScript, Ruby, Go, Rust, Swift, Kotlin, PHP"),
            ("列出十种编程语言。", "python\njava\njavascript\nruby\nrust\nswift\nkotlin\nphp\nperl"),
            (
                "列举五部经典的好莱坞电影。",
                "1. The Godfather\n2. Casablanca\n3. Citizen Kane\n4. Gone with the Wind\n5. The Lord of the Rings",
            ),
            ("Назови авторов Python, Linux и C.", "Guido van Rossum, Linus Torvalds, Dennis Ritchie"),
            ("画像のHTMLを書いて。", '<div class="box">\n  <img src="roof.png" alt="a roof of a small red house">\n</div>'),
            (
                "写一个函数。",
                "def f(items):\n    left = [item for item in items if item and not item in seen]\n    return left or None",
            ),
            ("列出五种水果的名字。", "apple, banana, cherry, peach, lemon, mango, orange"),
            ("قائمة بلغات البرمجة", "Python, Java, JavaScript, Kotlin, Swift, Rust"),
        )
    ),
    ("列出五种植物。", "The plant likes the sun, stands drought well and is often used in gardens.", False),
    ("Опиши крышу.", "Das Dach schützt die Menschen, die unter ihm wohnen, vor dem Regen und vor der Sonne.", False),
    ("屋根は何の役に立ちますか？", "Le toit protège les gens qui vivent dans la maison de la pluie et du soleil.", False),
    ("屋根は何の役に立ちますか？", "Sure! Here is a list of what a roof is good for: rain, snow, sun.", False),
    ("一元二次方程的解是什么？", r"$x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}$", True),
    ("What does 屋顶 mean?", "屋顶", True),
    (BRIDGE + "\n\n问题：谁为大桥剪彩？", OPENED, True),
    ("问题：谁为大桥剪彩？\n\n" + BRIDGE, OPENED, True),
    (f"Context: {BRIDGE}\n\nQuestion: 谁为第七座大桥剪彩？请根据上文简要回答。\n\nAnswer:", OPENED, True),
    (BRIDGE + "\n\nWho opened the bridge?", OPENED, False),
    (BRIDGE + "\n\nBy 王小明\n\nWho opened the bridge?", OPENED, False),
]


@pytest.mark.parametrize(("prompt", "completion", "meant"), CHANGES)
def test_a_change_of_the_writing_system_may_be_meant(prompt: str, completion: str, meant: bool) -> None:
    assert script(prompt) != script(completion) or meant
    assert may_change_script([{"role": "user", "content": prompt}], completion) is meant


def test_the_language_of_the_question_may_be_another_than_that_of_the_text_that_it_is_about() -> None:
    question = "Frage: Wer hat die Brücke im letzten Frühjahr feierlich eröffnet?"
    for prompt in (f"{BRIDGE}\n\n{question}", f"{question}\n\n{BRIDGE}", f"{BRIDGE}\n\n{question}\n\nAnswer:"):
        message = [{"role": "user", "content": prompt}]
        assert may_change_language(message, "de") and not may_change_language(message, "fr")


def test_slips_are_found_however_many_they_are_unless_most_of_the_slice_is_answered_so() -> None:
    for slipped, found in ((1, 1), (5, 5), (40, 40), (60, 0)):
        written = [("LATIN", "CYRILLIC")] * slipped + [("LATIN", "LATIN")] * (100 - slipped)
        assert len(slips(written, [""] * 100, 0.5)) == found
