"""make_model.py FOLDER [SHARDS] [MEBIBYTES]: a small sharded Hugging Face model, its weights written by the safetensors library."""
import json
import pathlib
import sys

import numpy
from safetensors.numpy import save_file

HIDDEN, LAYERS = 64, 4


def weights(mebibytes):
    random = numpy.random.default_rng(7)
    tensor = lambda *shape: random.standard_normal(shape, dtype=numpy.float32)
    state = {"model.embed_tokens.weight": tensor(512, HIDDEN), "model.norm.weight": tensor(HIDDEN)}
    for layer in range(LAYERS):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            state[f"model.layers.{layer}.self_attn.{name}.weight"] = tensor(HIDDEN, HIDDEN)
    rows = max(1, mebibytes * 2**20 // 4 // HIDDEN)
    state["lm_head.weight"] = tensor(rows, HIDDEN)
    return state


def save(folder, shards, mebibytes):
    folder.mkdir(parents=True, exist_ok=True)
    state = weights(mebibytes)
    names = sorted(state)
    parts = [names[start::shards] for start in range(shards)]
    index = {"metadata": {"total_size": sum(t.nbytes for t in state.values())}, "weight_map": {}}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05}-of-{shards:05}.safetensors"
        save_file({name: state[name] for name in part}, folder / file, metadata={"format": "pt"})
        index["weight_map"].update({name: file for name in part})
    write = lambda name, value: (folder / name).write_text(json.dumps(value, indent=2) + "\n")
    write("model.safetensors.index.json", index)
    write("config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "intermediate_size": HIDDEN, "vocab_size": 512, "torch_dtype": "float32",
    })
    write("generation_config.json", {"eos_token_id": 2})
    write("tokenizer.json", {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": []})
    write("tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer"})


if __name__ == "__main__":
    shards, mebibytes = [int(word) for word in sys.argv[2:]] + [3, 1][len(sys.argv) - 2 :]
    save(pathlib.Path(sys.argv[1]), shards, mebibytes)
