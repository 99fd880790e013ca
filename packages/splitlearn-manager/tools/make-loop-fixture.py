#!/usr/bin/python3
"""Makes test/fixtures/loop.onnx: counts to `n`, so a test chooses how long it computes. Needs onnx 1.12 or later.

    /usr/bin/python3 tools/make-loop-fixture.py

The file is committed, so only who changes it runs this. Running it again gives the same bytes.
"""

from pathlib import Path

from onnx import TensorProto, helper

FILE = Path(__file__).resolve().parent.parent / "test" / "fixtures" / "loop.onnx"


def value(name, elements):
    return helper.make_tensor_value_info(name, elements, [])


def constant(name, elements, number):
    return helper.make_tensor(name, elements, [], [number])


body = helper.make_graph(
    [helper.make_node("Identity", ["go_on"], ["go_on_out"]), helper.make_node("Add", ["count", "one"], ["count_out"])],
    "body",
    [value("index", TensorProto.INT64), value("go_on", TensorProto.BOOL), value("count", TensorProto.INT64)],
    [value("go_on_out", TensorProto.BOOL), value("count_out", TensorProto.INT64)],
    [constant("one", TensorProto.INT64, 1)],
)
graph = helper.make_graph(
    [helper.make_node("Loop", ["n", "go_on", "zero"], ["count"], body=body)],
    "loop",
    [value("n", TensorProto.INT64)],
    [value("count", TensorProto.INT64)],
    [constant("go_on", TensorProto.BOOL, True), constant("zero", TensorProto.INT64, 0)],
)
model = helper.make_model(
    graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="splitlearn fixtures"
)
FILE.write_bytes(model.SerializeToString(deterministic=True))
