"""llama.cpp on the loopback, by xllamacpp, and checkpoints of GPT-2 written as the GGUF files
that it reads.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

LAYER = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
"""GPT-2's modules and the names that llama.cpp gives their tensors."""
WHOLE = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}


def write_gguf(folder: Path, file: Path, kind: str, template: str, *, bos: bool = False) -> None:
    """Write a checkpoint of GPT-2 with matrices of a type of GGML, F32, F16 or Q8_0, and the
    rest in float32.
    """
    import gguf

    config, tokenizer = (
        json.loads((folder / name).read_text()) for name in ("config.json", "tokenizer.json")
    )
    to = gguf.GGUFWriter(file, "gpt2")
    to.add_context_length(config["n_positions"])
    to.add_embedding_length(config["n_embd"])
    to.add_feed_forward_length(4 * config["n_embd"])
    to.add_block_count(config["n_layer"])
    to.add_head_count(config["n_head"])
    to.add_layer_norm_eps(config["layer_norm_epsilon"])
    vocabulary, merges = (tokenizer["model"][name] for name in ("vocab", "merges"))
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    vocabulary |= special
    to.add_tokenizer_model("gpt2")
    to.add_tokenizer_pre("gpt-2")
    to.add_token_list(list(vocabulary))
    kinds = gguf.TokenType
    to.add_token_types(
        [kinds.CONTROL if token in special else kinds.NORMAL for token in vocabulary]
    )
    to.add_token_merges([" ".join(pair) for pair in merges])
    to.add_eos_token_id(config["eos_token_id"])
    to.add_bos_token_id(config["bos_token_id"])
    to.add_add_bos_token(bos)
    to.add_chat_template(template)
    chosen = gguf.GGMLQuantizationType[kind]
    for name, weight in load_file(folder / "model.safetensors").items():
        module, _, leaf = name.removeprefix("transformer.").rpartition(".")
        if module in WHOLE:
            new = WHOLE[module]
        elif module.startswith("h.") and (inner := module.split(".", 2)[2]) in LAYER:
            new = f"blk.{module.split('.')[1]}.{LAYER[inner]}"
            weight = np.ascontiguousarray(weight.T) if weight.ndim == 2 else weight  # noqa: PLW2901 - Conv1D's is (in, out)
        else:
            continue  # the tied output layer
        held = chosen if weight.ndim == 2 and module != "wpe" else gguf.GGMLQuantizationType.F32
        to.add_tensor(
            f"{new}.{leaf}", gguf.quants.quantize(weight.astype(np.float32), held), raw_dtype=held
        )
    to.write_header_to_file()
    to.write_kv_data_to_file()
    to.write_tensors_to_file()
    to.close()


@contextmanager
def serving(file: Path) -> Iterator[str]:
    """Serve a GGUF file by llama.cpp while the body runs, and yield the address up to the
    version.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads, params.port = 192 * 2, 2, 1, 0
    params.use_jinja, params.warmup, params.verbosity = True, False, 0
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server
