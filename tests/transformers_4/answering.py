"""What a model's folder answers in the transformers of this environment: imported by the tests, a script in the other one.

python answering.py FOLDER ...   prints {folder: what `answers` found, or {"error": ...}} as JSON.
"""

import json
import sys
from typing import Any

TEXTS = ("The road is shut.", " zwölf  Boxkämpfer,\n\n漢字 🙂", "<|im_start|>user\nhi<|im_end|> <late>", "")


def answers(folder: str) -> dict[str, Any]:
    """Tokens of texts and of a chat, special tokens, and the greedy answer in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXTS[1]}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        output = model.generate(**inputs, do_sample=False, max_new_tokens=12)
        logits = model(**inputs).logits[0, -1]
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    return {
        "inputs": {name: value.tolist() for name, value in inputs.items()},
        "ids": ids,
        "texts": [tokenizer.decode(one, skip_special_tokens=True) for one in ids],
        "ends": [tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token],
        "stops": model.generation_config.eos_token_id,
        "answer": output[0].tolist(),
        "logits": logits.tolist(),
    }


def main(folders: list[str]) -> None:
    found = {}
    for folder in folders:
        try:
            found[folder] = answers(folder)
        except Exception as error:  # whatever it is: the test names it  # noqa: BLE001
            found[folder] = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
