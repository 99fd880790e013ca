#!/usr/bin/python3
"""Makes the small ONNX files of test/fixtures/onnx/ and the tiny models beside it. Needs onnx 1.12 or later (Debian 12: python3-onnx).

    /usr/bin/python3 tools/make-onnx-fixtures.py

The files are committed, so only who changes them runs this. Running it again gives the same bytes.
"""

import json
from pathlib import Path

import numpy
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

FOLDER = Path(__file__).resolve().parent.parent / "test" / "fixtures" / "onnx"

# onnx 1.12 has no name for it yet.
INT4 = 22

DTYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int16": TensorProto.INT16,
    "uint16": TensorProto.UINT16,
    "int32": TensorProto.INT32,
    "uint32": TensorProto.UINT32,
    "int64": TensorProto.INT64,
    "uint64": TensorProto.UINT64,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
}


def tensor(name, elements=TensorProto.FLOAT, shape=None):
    """A typed input or output; a shape of None is an unknown rank."""
    return helper.make_tensor_value_info(name, elements, shape)


def save(name, nodes, inputs, outputs, initializers=(), opset=17, ir_version=8, folder=FOLDER):
    graph = helper.make_graph(nodes, name, inputs, outputs, list(initializers))
    # No more domains than are used: ONNX Runtime warns of versions it does not know even where nothing uses them.
    domains = {node.domain for node in nodes} | {""}
    versions = {"": opset, "ai.onnx.ml": 2, "com.example": 1}
    imports = [helper.make_opsetid(domain, versions[domain]) for domain in sorted(domains)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version, producer_name="splitlearn fixtures")
    (folder / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


def identities():
    """Any shape in, the same out, for each element type."""
    for name, elements in DTYPES.items():
        node = helper.make_node("Identity", ["x"], ["y"])
        save(f"identity-{name}", [node], [tensor("x", elements)], [tensor("y", elements)])


def shapes():
    pair = [helper.make_node("Add", ["left", "right"], ["sum"]), helper.make_node("Sub", ["left", "right"], ["difference"])]
    rows = ["rows", 3]
    save(
        "add-rows",
        pair,
        [tensor("left", shape=rows), tensor("right", shape=rows)],
        [tensor("sum", shape=rows), tensor("difference", shape=rows)],
    )
    save(
        "add-scalars",
        [helper.make_node("Add", ["left", "right"], ["sum"])],
        [tensor("left", shape=[]), tensor("right", shape=[])],
        [tensor("sum", shape=[])],
    )
    save(
        "fill",
        [helper.make_node("ConstantOfShape", ["shape"], ["filled"])],
        [tensor("shape", TensorProto.INT64, [None])],
        [tensor("filled")],
    )


def batches():
    random = numpy.random.default_rng(5)
    first = numpy_helper.from_array(random.standard_normal((16, 64), dtype=numpy.float32), "first")
    second = numpy_helper.from_array(random.standard_normal((64, 8), dtype=numpy.float32), "second")
    save(
        "layers",
        [
            helper.make_node("MatMul", ["x", "first"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["positive"]),
            helper.make_node("MatMul", ["positive", "second"], ["y"]),
        ],
        [tensor("x", shape=["batch", 16])],
        [tensor("y", shape=["batch", 8])],
        [first, second],
    )
    # Fails for an id that is not in the table.
    table = numpy_helper.from_array(numpy.arange(40, dtype=numpy.float32).reshape(10, 4), "table")
    save(
        "look-up",
        [helper.make_node("Gather", ["table", "ids"], ["rows"])],
        [tensor("ids", TensorProto.INT64, ["batch", "length"])],
        [tensor("rows", shape=["batch", "length", 4])],
        [table],
    )


def inputs():
    bias = numpy_helper.from_array(numpy.float32([10, 20, 30]), "bias")
    save(
        "default-input",
        [helper.make_node("Add", ["x", "bias"], ["y"])],
        [tensor("x", shape=["rows", 3]), tensor("bias", shape=[3])],
        [tensor("y", shape=["rows", 3])],
        [bias],
    )
    save("no-input", [helper.make_node("Identity", ["bias"], ["y"])], [], [tensor("y", shape=[3])], [bias])
    sequence = helper.make_tensor_sequence_value_info("pieces", TensorProto.FLOAT, None)
    save("sequence-input", [helper.make_node("ConcatFromSequence", ["pieces"], ["y"], axis=0)], [sequence], [tensor("y")])


def outputs():
    # What scikit-learn's converter makes of a classifier: a label, and a list of maps from class to probability.
    maps = ValueInfoProto(name="probabilities")
    class_to_score = maps.type.sequence_type.elem_type.map_type
    class_to_score.key_type = TensorProto.INT64
    class_to_score.value_type.tensor_type.elem_type = TensorProto.FLOAT
    save(
        "classifier",
        [
            helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
            helper.make_node("Softmax", ["scores"], ["softmax"], axis=1),
            helper.make_node("ZipMap", ["softmax"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
        ],
        [tensor("scores", shape=["rows", 2])],
        [tensor("label", TensorProto.INT64, ["rows"]), maps],
    )
    scale = numpy_helper.from_array(numpy.float32(1), "scale")
    zero = TensorProto(name="zero", data_type=INT4, int32_data=[0])
    save(
        "int4-output",
        [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["small"]), helper.make_node("Abs", ["x"], ["y"])],
        [tensor("x", shape=["n"])],
        [tensor("small", INT4, ["n"]), tensor("y", shape=["n"])],
        [scale, zero],
        opset=21,
        ir_version=10,
    )
    # Every output is the input's elements once more, so a runtime that avoids copies would share their memory.
    flat = numpy_helper.from_array(numpy.int64([-1]), "flat")
    save(
        "aliases",
        [
            helper.make_node("Identity", ["x"], ["first"]),
            helper.make_node("Identity", ["x"], ["second"]),
            helper.make_node("Reshape", ["first", "flat"], ["third"]),
        ],
        [tensor("x")],
        [tensor("first"), tensor("second"), tensor("third")],
        [flat],
    )


def strings():
    save(
        "label-encoder",
        [
            helper.make_node(
                "LabelEncoder",
                ["word"],
                ["id"],
                domain="ai.onnx.ml",
                keys_strings=["cat", "dog", "grüße"],
                values_int64s=[1, 2, 3],
                default_int64=-1,
            )
        ],
        [tensor("word", TensorProto.STRING, ["words"])],
        [tensor("id", TensorProto.INT64, ["words"])],
    )


def external(name, location, count=1024, offset=0):
    weight = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[count], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": str(offset), "length": str(4 * count)}.items():
        weight.external_data.add(key=key, value=value)
    if count == 1024:
        add = helper.make_node("Add", ["x", "weight"], ["y"])
        save(name, [add], [tensor("x", shape=[count])], [tensor("y", shape=[count])], [weight])
    else:
        # Summed up while the model is loaded, as all that depends on no input.
        nodes = [helper.make_node("ReduceSum", ["weight"], ["sum"], keepdims=0), helper.make_node("Add", ["x", "sum"], ["y"])]
        save(name, nodes, [tensor("x", shape=[1])], [tensor("y", shape=[1])], [weight])


def unusable():
    external("external-data-missing", "nowhere.data")
    # Models that mean harm: weights from elsewhere, or more of them than there are.
    external("external-data-above", "../loop.onnx", count=16)
    external("external-data-absolute", "/etc/passwd", count=16)
    external("external-data-terabyte", "external-data.bin", count=2**38)
    external("external-data-sparse", "sparse.bin", count=2**28)
    float_in_out = [tensor("x")], [tensor("y")]
    save("future-opset", [helper.make_node("Identity", ["x"], ["y"])], *float_in_out, opset=999)
    save("unknown-operator", [helper.make_node("Frobnicate", ["x"], ["y"])], *float_in_out)
    save("custom-operator", [helper.make_node("Frobnicate", ["x"], ["y"], domain="com.example")], *float_in_out)
    whole = (FOLDER / "external-data.onnx").read_bytes()
    (FOLDER / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    (FOLDER / "empty.onnx").write_bytes(b"")
    # What a clone without Git LFS has in place of a model.
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 497000000\n"
    (FOLDER / "git-lfs-pointer.onnx").write_text(pointer)


def pretty(value, indent=""):
    """JSON in the repository's format: objects over several lines, lists of plain values on one."""
    inner = indent + "  "
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(key)}: {pretty(one, inner)}" for key, one in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value):
        return "[\n" + ",\n".join(inner + pretty(one, inner) for one in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)


def write_json(path, content):
    path.write_text(pretty(content) + "\n")


def model_folder(name, config, **files):
    """A model as the hub has them, for transformers.js. Its weights are made up, so that what it says can be foreseen."""
    folder = FOLDER.parent / name
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    for file, content in files.items():
        write_json(folder / f"{file}.json", content)
    return folder / "onnx"


def constant(name, values, elements=numpy.float32):
    return numpy_helper.from_array(numpy.array(values, elements), name)


VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "a", "very"]


def tiny_bert():
    """Each word is a row of two numbers, how good and how bad it is; all that is asked for is made of these."""
    special = [{"id": i, "content": t, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False} for i, t in enumerate(VOCABULARY[:5])]
    cls, sep = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [cls, {"Sequence": {"id": "A", "type_id": 0}}, sep],
            "pair": [cls, {"Sequence": {"id": "A", "type_id": 0}}, sep, {"Sequence": {"id": "B", "type_id": 1}},
                     {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for i, t in ((2, "[CLS]"), (3, "[SEP]"))},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {t: i for i, t in enumerate(VOCABULARY)}},
    }
    tokenizer_config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 32,
                        "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
                        "mask_token": "[MASK]"}
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": 2,
              "num_attention_heads": 1, "num_hidden_layers": 1, "vocab_size": len(VOCABULARY),
              "max_position_embeddings": 32,
              "id2label": {"0": "contradiction", "1": "entailment"}, "label2id": {"contradiction": 0, "entailment": 1}}
    folder = model_folder("tiny-bert", config, tokenizer=tokenizer, tokenizer_config=tokenizer_config)
    rows = [[0, 0]] * 5 + [[0, 4], [4, 0], [1, 1], [0, 0], [0, 0]]
    tokens = ["batch", "sequence"]
    inputs = [tensor(name, TensorProto.INT64, tokens) for name in ("input_ids", "attention_mask", "token_type_ids")]
    look_up = helper.make_node("Gather", ["rows", "input_ids"], ["last_hidden_state"])
    hidden = tensor("last_hidden_state", shape=[*tokens, 2])
    sum_up = helper.make_node("ReduceSum", ["last_hidden_state", "axis"], ["logits"], keepdims=0)
    split = helper.make_node("Split", ["last_hidden_state"], ["starts", "ends"], axis=2)
    squeeze = [helper.make_node("Squeeze", [f"{end}s", "last"], [f"{end}_logits"]) for end in ("start", "end")]
    save("model", [look_up, sum_up, split, *squeeze], inputs,
         [hidden, tensor("logits", shape=["batch", 2]), *(tensor(f"{end}_logits", shape=tokens) for end in ("start", "end"))],
         [constant("rows", rows), constant("axis", [1], numpy.int64), constant("last", [2], numpy.int64)], folder=folder)
    # For each token a score of every word: the tokens' own labels, and what may stand in the place of a mask.
    words = numpy.eye(len(VOCABULARY)) * 3
    words[4, 5:7] = [5, 4]
    save("words", [helper.make_node("Gather", ["rows", "input_ids"], ["logits"])], inputs,
         [tensor("logits", shape=[*tokens, len(VOCABULARY)])], [constant("rows", words)], folder=folder)


def tiny_vit():
    """Tells whether an image is rather red or rather blue."""
    config = {"model_type": "vit", "architectures": ["ViTForImageClassification"],
              "id2label": {"0": "red", "1": "green", "2": "blue"}, "label2id": {"red": 0, "green": 1, "blue": 2}}
    processor = {"image_processor_type": "ViTImageProcessor", "do_resize": False, "do_rescale": True,
                 "rescale_factor": 1 / 255, "do_normalize": False}
    folder = model_folder("tiny-vit", config, preprocessor_config=processor)
    save("model", [helper.make_node("ReduceMean", ["pixel_values"], ["logits"], axes=[2, 3], keepdims=0)],
         [tensor("pixel_values", shape=["batch", 3, "height", "width"])], [tensor("logits", shape=["batch", 3])],
         folder=folder)


def tiny_wav2vec2():
    """Tells how loud something is."""
    config = {"model_type": "wav2vec2", "architectures": ["Wav2Vec2ForSequenceClassification"],
              "id2label": {"0": "quiet", "1": "loud"}, "label2id": {"quiet": 0, "loud": 1}}
    processor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16000, "feature_size": 1,
                 "do_normalize": False, "padding_value": 0.0, "padding_side": "right", "return_attention_mask": False}
    folder = model_folder("tiny-wav2vec2", config, preprocessor_config=processor)
    nodes = [helper.make_node("ReduceL1", ["input_values"], ["sum"], axes=[1], keepdims=1),
             helper.make_node("Concat", ["half", "sum"], ["logits"], axis=1)]
    save("model", nodes, [tensor("input_values", shape=["batch", "samples"])], [tensor("logits", shape=["batch", 2])],
         [constant("half", [[0.5]])], folder=folder)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    identities()
    shapes()
    batches()
    inputs()
    outputs()
    strings()
    external("external-data", "external-data.bin")
    (FOLDER / "external-data.bin").write_bytes(numpy.arange(1024, dtype="<f4").tobytes())
    unusable()
    tiny_bert()
    tiny_vit()
    tiny_wav2vec2()
