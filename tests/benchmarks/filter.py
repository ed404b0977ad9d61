"""Near-duplicate search beside datasketch, rensa, text-dedup and semhash, on the same planted rows, one run, one process each.

    python tests/benchmarks/filter.py --rows 100000 --environments /tmp/bench

Every tool gets the same texts, best row first, and says which rows it keeps; reading them is not timed, tokenisation is.
Tools run in environments of their own, made on first use. Similarity is the Jaccard similarity of the sets of word pairs;
tools that take tokens get those pairs. Printed for each: rows a second, peak memory, recall by planted similarity,
precision (a removed row is right when a row of its family that the tool keeps is at least .8 similar; across families
nothing is), and the share of families whose best row survives.
"""

import argparse
import itertools
import json
import random
import re
import resource
import subprocess
import sys
import time
import venv
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

SIMILARITY = 0.8
PERMUTATIONS = 128
PACKAGES = {
    "seqdistill": [],
    "rensa": ["rensa==0.5.0"],
    "rensa-rho": ["rensa==0.5.0"],
    "text-dedup": ["text-dedup==0.4.0"],
    "semhash": ["semhash==0.5.0"],
    "datasketch": ["datasketch==2.0.0"],
}
BUCKETS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
_WORD = re.compile(r"\d+|[^\W\d_]+")


def pairs(text: str) -> set[str]:
    return set(in_order(text))


def in_order(text: str) -> list[str]:
    found = ["", *_WORD.findall(text.casefold()), ""]
    return [f"{a} {b}" for a, b in itertools.pairwise(found)]


def planted(rows: int, seed: int = 0) -> Iterator[tuple[int, str]]:
    """(family, text): short and long records, half of them with up to three copies that have some words changed."""
    rng = random.Random(seed)
    syllables = [a + b for a in "bcdfghklmnprstvz" for b in "aeiou"]
    vocabulary = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(30_000)]
    weights = [1 / (rank + 5) for rank in range(len(vocabulary))]
    pool = rng.choices(vocabulary, weights, k=2_000_000)
    made = family = 0
    while made < rows:
        start, length = rng.randrange(len(pool) - 200), rng.choice((8, 12, 20, 30, 40, 60, 120))
        base = pool[start : start + length]
        rng.shuffle(base)
        for copy in range(1 if rng.random() < 0.5 else rng.randint(2, 4)):
            words = list(base)
            for _ in range(rng.randint(0, max(1, length // 6)) if copy else 0):
                words[rng.randrange(length)] = rng.choice(vocabulary)
            if made < rows:
                yield family, " ".join(words).capitalize() + "."
                made += 1
        family += 1


# --- the tools: texts, best first -> whether each is kept -----------------------------------------------------------------


def seqdistill(texts: list[str]) -> list[bool]:
    import numpy as np

    from seqdistill.stages.filter.checks.near_duplicates import near_duplicates
    from seqdistill.stages.filter.checks.words import Sets, pair_sets, words

    parts = [pair_sets(words(texts[start : start + 2000])) for start in range(0, len(texts), 2000)]
    bounds = np.concatenate([[0], np.cumsum(np.concatenate([part.sizes for part in parts]))])
    sets = Sets(np.concatenate([part.hashes for part in parts]), bounds)
    same = np.zeros(len(texts), np.uint64)
    kept: list[bool] = (near_duplicates(sets, same, np.arange(len(texts)), SIMILARITY).kept_by < 0).tolist()
    return kept


def datasketch(texts: list[str]) -> list[bool]:
    from datasketch import MinHash, MinHashLSH

    index, kept = MinHashLSH(threshold=SIMILARITY, num_perm=PERMUTATIONS), []
    for number, text in enumerate(texts):
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([pair.encode() for pair in pairs(text)])
        kept.append(not index.query(sketch))
        if kept[-1]:
            index.insert(number, sketch)
    return kept


def rensa(texts: list[str]) -> list[bool]:
    """R-MinHash in its bulk form: kept is what is not similar to a kept row by the signatures' estimate."""
    from rensa import RMinHash, RMinHashDeduplicator

    index = RMinHashDeduplicator(threshold=SIMILARITY, num_perm=PERMUTATIONS, use_lsh=True, num_bands=32)
    sketches = RMinHash.from_token_sets([list(pairs(text)) for text in texts], num_perm=PERMUTATIONS, seed=42)
    return list(index.add_pairs([(str(number), sketch) for number, sketch in enumerate(sketches)]))


def rensa_rho(texts: list[str]) -> list[bool]:
    """The sampling pipeline of its own benchmark, 8 bands: fast, unverified, and blind to most of a short text."""
    from rensa import RMinHash, RMinHashLSH

    matrix = RMinHash.digest_matrix_from_token_sets_rho([in_order(text) for text in texts], num_perm=PERMUTATIONS, seed=42)
    index = RMinHashLSH(threshold=SIMILARITY, num_perm=PERMUTATIONS, num_bands=8)
    return [not flag for flag in index.insert_matrix_and_query_duplicate_flags(matrix)]


def text_dedup(texts: list[str]) -> list[bool]:
    """Its hash and cluster code in this process, as its command runs it, on word pairs."""
    import numpy as np
    from text_dedup.minhash import RNG, embed_func
    from text_dedup.utils import UnionFind, optimal_param, xxh3_32hash

    bands, rows = optimal_param(SIMILARITY, PERMUTATIONS)
    ranges = [(band * rows, (band + 1) * rows) for band in range(bands)]
    prime, most = np.uint32((1 << 32) - 5), np.uint32((1 << 32) - 1)
    permutations = (
        RNG.randint(1, prime, size=PERMUTATIONS, dtype=np.uint32),
        RNG.randint(0, prime, size=PERMUTATIONS, dtype=np.uint32),
    )
    tables: list[dict[bytes, int]] = [{} for _ in ranges]
    union = UnionFind()
    for number, text in enumerate(texts):
        hashed = embed_func(
            text,
            number,
            num_perm=PERMUTATIONS,
            ngram_size=2,
            min_length=0,
            hashranges=ranges,
            permutations=permutations,
            hash_func=xxh3_32hash,
            dtype=np.uint32,
            max_hash=most,
            modulo_prime=prime,
        )
        for table, band in zip(tables, hashed["__signatures__"], strict=True):
            if (first := table.setdefault(band, number)) != number:
                union.union(number, first)
    return [union.find(number) == number for number in range(len(texts))]


def semhash(texts: list[str]) -> list[bool]:
    """With a lexical encoder: the word pairs hashed into 256 dimensions, so that no model is needed; cosine at least .8."""
    import zlib

    import numpy as np
    from semhash import SemHash

    class Lexical:
        def encode(self, inputs: list[str], **_: object) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
            vectors = np.zeros((len(inputs), 256), np.float32)
            for row, text in enumerate(inputs):
                hashes = np.fromiter((zlib.crc32(pair.encode()) for pair in pairs(text)), np.int64)
                np.add.at(vectors[row], hashes & 255, np.where(hashes & 256, 1.0, -1.0))
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
            return vectors

    found = SemHash.from_records(records=texts, model=Lexical()).self_deduplicate(threshold=SIMILARITY)
    left = Counter(found.selected)
    kept = []
    for text in texts:
        kept.append(left[text] > 0)
        left[text] -= kept[-1]
    return kept


# --- measuring --------------------------------------------------------------------------------------------------------


def run_tool(name: str, data: Path) -> None:
    """In the tool's environment: times it and prints one JSON line."""
    texts = [json.loads(line)["text"] for line in data.open(encoding="utf-8")]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tool = {"seqdistill": seqdistill, "datasketch": datasketch, "rensa": rensa, "text-dedup": text_dedup, "semhash": semhash}
    started = time.perf_counter()
    kept = (tool | {"rensa-rho": rensa_rho})[name](texts)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = "".join("1" if row else "0" for row in kept)
    print(json.dumps({"seconds": seconds, "peak_mb": peak / 1024, "texts_mb": before / 1024, "kept": rows}))


def judged(families: list[int], texts: list[str], kept: str) -> dict[str, object]:
    members: dict[int, list[int]] = defaultdict(list)
    for number, family in enumerate(families):
        members[family].append(number)
    wanted, hit, removed, right, survived = Counter[float](), Counter[float](), 0, 0, 0
    for rows in members.values():
        sets = [pairs(texts[row]) for row in rows]
        survived += kept[rows[0]] == "1"
        for place, row in enumerate(rows):
            better = [len(sets[place] & other) / len(sets[place] | other) for other in sets[:place]]
            standing = [j for j, b in zip(better, rows, strict=False) if kept[b] == "1"]
            others = standing + [
                len(sets[place] & sets[k]) / len(sets[place] | sets[k])
                for k in range(place + 1, len(rows))
                if kept[rows[k]] == "1"
            ]
            gone = kept[row] == "0"
            removed, right = removed + gone, right + (gone and any(j >= SIMILARITY for j in others))
            if standing or (better and not gone):
                bucket = max((b for b in BUCKETS if b <= max(standing or [0])), default=0.0)
                wanted[bucket], hit[bucket] = wanted[bucket] + 1, hit[bucket] + gone
    due = [b for b in BUCKETS if b >= SIMILARITY]
    return {
        "recall": sum(hit[b] for b in due) / max(1, sum(wanted[b] for b in due)),
        "recall_by_similarity": {str(b): round(hit[b] / wanted[b], 4) for b in BUCKETS if wanted[b]},
        "precision": right / max(1, removed),
        "best_survives": survived / len(members),
        "removed": removed,
    }


def python_of(name: str, environments: Path) -> str:
    """The Python of a tool's environment, made if it is not there; this one for seqdistill."""
    if name == "seqdistill":
        return sys.executable
    folder = environments / name.removesuffix("-rho")
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "pip", "install", "-q", *PACKAGES[name]], check=True, stderr=subprocess.DEVNULL)
    return str(folder / "bin" / "python")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000])
    parser.add_argument("--tools", nargs="+", default=list(PACKAGES), choices=list(PACKAGES))
    parser.add_argument("--environments", type=Path, default=Path(".venv-bench"))
    parser.add_argument("--limit", type=float, default=1800, help="seconds a tool may take")
    parser.add_argument("--tool", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tool:
        run_tool(options.tool, options.data)
        return
    options.environments.mkdir(parents=True, exist_ok=True)
    for count in options.rows:
        data = options.environments / f"planted-{count}.jsonl"
        rows = list(planted(count))
        data.write_text("".join(json.dumps({"text": text}) + "\n" for _, text in rows), encoding="utf-8")
        families, texts = [family for family, _ in rows], [text for _, text in rows]
        print(f"{count} rows, {sum(map(len, texts)) / count:.0f} characters each, {len(set(families))} families")
        for name in options.tools:
            command = [python_of(name, options.environments), __file__, "--tool", name, "--data", str(data)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=options.limit, check=True)
            except subprocess.TimeoutExpired:
                print(f"{name:11} not done in {options.limit:.0f} s")
                continue
            except subprocess.CalledProcessError as error:
                print(f"{name:11} failed: {error.stderr.strip().splitlines()[-1]}")
                continue
            measured = json.loads(done.stdout.splitlines()[-1])
            scores = judged(families, texts, measured.pop("kept"))
            print(
                f"{name:11} {measured['seconds']:8.2f} s {count / measured['seconds']:9.0f} rows/s "
                f"{measured['peak_mb']:7.0f} MB (texts {measured['texts_mb']:.0f}) recall {scores['recall']:.4f} "
                f"precision {scores['precision']:.4f} best {scores['best_survives']:.4f} {scores['recall_by_similarity']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
