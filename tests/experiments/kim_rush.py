"""The shape of Kim & Rush (2016, https://arxiv.org/abs/1606.07947) on the demo's task: `make experiment`.

Trains one student for each way to distil and each seed, has it answer the test prompts greedily and with beams, and writes
HOME/table.md and HOME/scores.json. The ways, by their names in the paper, and as recipe keys:

    references    the gold sentences alone                     method = "sequence" on imported references
    word          the teacher's distribution along the gold    method = "soft" on the same, after `seqdistill targets`
    sequence      the teacher's own text                       method = "sequence"
    interpolation the teacher's text and the gold sentences    method = "sequence", reference_weight = 1
    word+sequence the teacher's distribution along its text    method = "soft"
    combined      all of it                                    method = "soft", reference_weight = 1

Intervals are 95% bootstrap intervals of the mean over prompts, each prompt's score a mean over seeds.
"""

from collections.abc import Mapping, Sequence

from students import Scores, Way, experiment_of, flags_of, interval, keep, mean, ranged, run, scored, teacher_answers

from seqdistill.metrics.text import chrf

WAYS = (
    Way("references", {"train": {"method": "sequence"}}, "references"),
    Way("word", {"train": {"method": "soft"}}, "references"),
    Way("sequence", {"train": {"method": "sequence"}}),
    Way("interpolation", {"train": {"method": "sequence", "reference_weight": 1.0}}),
    Way("word+sequence", {"train": {"method": "soft"}}),
    Way("combined", {"train": {"method": "soft", "reference_weight": 1.0}}),
)


def main() -> None:
    """Does what the flags say and prints the table."""
    parser = flags_of(__doc__, "kim-rush")
    parser.add_argument("--beams", type=int, default=4)
    flags = parser.parse_args()
    experiment = experiment_of(flags, WAYS, (1, flags.beams))
    answers = run(experiment, flags)
    teacher, gold = teacher_answers(experiment), [prompt.reference or "" for prompt in experiment.test]
    scores = {
        f"{way}, {'greedy' if beams == 1 else f'{beams} beams'}": {
            "reference": scored(texts, gold),
            "teacher": scored(texts, teacher),
        }
        for way, by_beams in answers.items()
        for beams, texts in by_beams.items()
    }
    keep(experiment, markdown(scores, [chrf(*pair) for pair in zip(teacher, gold, strict=True)]), scores)


def markdown(scores: Mapping[str, Mapping[str, Scores]], teacher: Sequence[float]) -> str:
    """The table: a mean over prompts with its interval for each way and decoding, and the range over seeds."""
    lines = ["| trained on, decoded | chrF to reference | seeds | chrF to teacher | seeds |", "|---|---|---|---|---|"]
    for name, found in scores.items():
        cells = [
            cell for against in ("reference", "teacher") for cell in (interval(mean(found[against])), ranged(found[against]))
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, f"| teacher, greedy | {interval(teacher)} | | | |", ""])


if __name__ == "__main__":
    main()
