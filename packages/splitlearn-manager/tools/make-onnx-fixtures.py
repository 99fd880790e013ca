#!/usr/bin/python3
"""Makes the small ONNX files of test/fixtures/onnx/. Needs onnx 1.12 or later (Debian 12: python3-onnx).

    /usr/bin/python3 tools/make-onnx-fixtures.py

The files are committed, so only who changes them runs this. Running it again gives the same bytes.
"""

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


def save(name, nodes, inputs, outputs, initializers=(), opset=17, ir_version=8):
    graph = helper.make_graph(nodes, name, inputs, outputs, list(initializers))
    # No more domains than are used: ONNX Runtime warns of versions it does not know even where nothing uses them.
    domains = {node.domain for node in nodes} | {""}
    versions = {"": opset, "ai.onnx.ml": 2, "com.example": 1}
    imports = [helper.make_opsetid(domain, versions[domain]) for domain in sorted(domains)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version, producer_name="splitlearn fixtures")
    (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


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


def external(name, location):
    weight = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[1024], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": "4096"}.items():
        weight.external_data.add(key=key, value=value)
    add = helper.make_node("Add", ["x", "weight"], ["y"])
    save(name, [add], [tensor("x", shape=[1024])], [tensor("y", shape=[1024])], [weight])


def unusable():
    external("external-data-missing", "nowhere.data")
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


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    identities()
    shapes()
    inputs()
    outputs()
    strings()
    external("external-data", "external-data.bin")
    (FOLDER / "external-data.bin").write_bytes(numpy.arange(1024, dtype="<f4").tobytes())
    unusable()
