"""A language model of random weights, small enough to make in a moment, and a server of it.

`python -m tests.end_to_end.tiny_model DIRECTORY` writes the model, serves it with llama.cpp's own
server on a free port of 127.0.0.1, prints the base URL, and ends with its standard input. What the
model says is noise; what the server counts is real.
"""

import sys
from pathlib import Path

NAME = "tiny-random"
WIDTH, LAYERS, HEADS, INNER, CONTEXT = 64, 2, 4, 128, 2048
CHAT_TEMPLATE = "{% for m in messages %}<{{m.role}}>{{m.content}}\n{% endfor %}<assistant>"
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # kinds of token


def vocabulary() -> list[tuple[bytes, int]]:
    """Return tokens and their kinds: every byte, so that any text can be read, and some letters."""
    marks = [(b"<unk>", UNKNOWN), (b"<s>", CONTROL), (b"</s>", CONTROL)]
    octets = [(b"<0x%02X>" % value, BYTE) for value in range(256)]
    letters = [(letter.encode(), NORMAL) for letter in "\u2581etaoinshrdlucmfwypvbgkjqxz"]
    return marks + octets + letters


def write_model(path: Path) -> None:
    """Write the model as GGUF, the same at every time."""
    import gguf  # noqa: PLC0415 - of the e2e extra
    import numpy as np  # noqa: PLC0415 - of the e2e extra

    tokens, kinds = zip(*vocabulary(), strict=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(NAME)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0 if kind != NORMAL else -1.0 for kind in kinds])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    chance = np.random.default_rng(0)
    for name, shape in _matrices(len(tokens)):
        writer.add_tensor(name, (chance.standard_normal(shape) * 0.2).astype(np.float32))
    norms = [
        "output_norm",
        *(f"blk.{n}.{kind}_norm" for n in range(LAYERS) for kind in ("attn", "ffn")),
    ]
    for name in norms:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _matrices(tokens: int) -> list[tuple[str, tuple[int, int]]]:
    """Return names and shapes of all weights but the norms."""
    square, inward, outward = (WIDTH, WIDTH), (INNER, WIDTH), (WIDTH, INNER)
    layer = {"attn_q": square, "attn_k": square, "attn_v": square, "attn_output": square}
    layer |= {"ffn_gate": inward, "ffn_up": inward, "ffn_down": outward}
    names = [("token_embd.weight", (tokens, WIDTH)), ("output.weight", (tokens, WIDTH))]
    for number in range(LAYERS):
        names += [(f"blk.{number}.{name}.weight", shape) for name, shape in layer.items()]
    return names


def main() -> None:
    """Serve until standard input ends."""
    import xllamacpp  # noqa: PLC0415 - of the e2e extra

    model = Path(sys.argv[1]) / "tiny.gguf"
    write_model(model)
    settings = xllamacpp.CommonParams()
    settings.model.path = str(model)
    settings.model_alias = {NAME}
    settings.hostnames = ["127.0.0.1"]
    settings.port = 0
    settings.embedding = "--embedding" in sys.argv
    settings.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    settings.n_ctx = CONTEXT
    settings.n_parallel = 2
    settings.cpuparams.n_threads = 1
    settings.warmup = False
    settings.use_jinja = True
    server = xllamacpp.Server(settings)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
