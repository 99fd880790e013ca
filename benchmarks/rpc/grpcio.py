"""Python's grpcio, in a process of its own: what main.mjs is for the peers in Node.js, with the same lines of JSON.

A unary call a tensor goes from asyncio to asyncio, messages on one open stream (`stream` in the options) from threads
to threads: of the four combinations of both the fastest each.
"""

import asyncio
import json
import queue
import sys
import threading
import time
from concurrent import futures

import grpc
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "splitlearn.comm.v1"
SERVICE = f"{PACKAGE}.ComputeService"
FLOAT32 = 1
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

# The part of compute.proto that an echo needs, so that it takes no generated code. An enum is an int32 on the wire.
MESSAGES = {
    "Tensor": [("name", 1, "STRING"), ("dtype", 2, "INT32"), ("shape", 3, "INT64*"), ("data", 5, "BYTES")],
    "ComputeRequest": [("request_id", 1, "STRING"), ("inputs", 3, "Tensor*")],
    "ComputeResponse": [("request_id", 1, "STRING"), ("outputs", 3, "Tensor*")],
}


def message_class(name):
    return message_factory.MessageFactory(POOL).GetPrototype(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def describe_messages():
    file = descriptor_pb2.FileDescriptorProto(name="echo.proto", package=PACKAGE, syntax="proto3")
    for message_name, fields in MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind in fields:
            field = message.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            kind = kind.rstrip("*")
            if kind in MESSAGES:
                field.type, field.type_name = field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


POOL = describe_messages()
ComputeRequest = message_class("ComputeRequest")
ComputeResponse = message_class("ComputeResponse")


def to_request(tensor, request_id=""):
    request = ComputeRequest(request_id=request_id)
    request.inputs.add(name="input", dtype=FLOAT32, shape=tensor.shape, data=tensor.tobytes())
    return request


def answer(request):
    """A server's answer: the request's tensor, taken out and put in again."""
    tensor = np.frombuffer(request.inputs[0].data, np.float32)
    response = ComputeResponse(request_id=request.request_id)
    response.outputs.add(name="output", dtype=FLOAT32, shape=tensor.shape, data=tensor.tobytes())
    return response


def from_response(response):
    return np.frombuffer(response.outputs[0].data, np.float32)


def service(method, handler, implementation):
    """Also in grpcio's generated code this is all there is."""
    serialization = {
        "request_deserializer": ComputeRequest.FromString,
        "response_serializer": ComputeResponse.SerializeToString,
    }
    return [grpc.method_handlers_generic_handler(SERVICE, {method: handler(implementation, **serialization)})]


def call(channel_method, method):
    return channel_method(
        f"/{SERVICE}/{method}",
        request_serializer=ComputeRequest.SerializeToString,
        response_deserializer=ComputeResponse.FromString,
    )


async def serve_unary(listen):
    async def compute(request, context):
        return answer(request)

    server = grpc.aio.server(options=UNLIMITED)
    server.add_generic_rpc_handlers(service("Compute", grpc.unary_unary_rpc_method_handler, compute))
    port = server.add_insecure_port(listen)
    await server.start()
    say({"address": f"127.0.0.1:{port}"})
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


def serve_stream(listen):
    def compute_stream(requests, context):
        return map(answer, requests)

    server = grpc.server(futures.ThreadPoolExecutor(), options=UNLIMITED)
    server.add_generic_rpc_handlers(service("ComputeStream", grpc.stream_stream_rpc_method_handler, compute_stream))
    port = server.add_insecure_port(listen)
    server.start()
    say({"address": f"127.0.0.1:{port}"})
    sys.stdin.read()
    server.stop(0)


async def connect_unary(address):
    channel = grpc.aio.insecure_channel(address, options=UNLIMITED)
    compute = call(channel.unary_unary, "Compute")

    async def lane(load):
        for tensor, took in load.echoes():
            took(from_response(await compute(to_request(tensor))))

    say({})
    while line := await asyncio.to_thread(sys.stdin.readline):
        load = Load(**json.loads(line))
        try:
            await asyncio.gather(*[lane(load) for _ in range(load.in_flight)])
            say(load.result())
        except Exception as error:
            say({"error": repr(error)})


def connect_stream(address):
    channel = grpc.insecure_channel(address, options=UNLIMITED)
    requests = queue.SimpleQueue()
    waiting = {}
    responses = call(channel.stream_stream, "ComputeStream")(iter(requests.get, None))

    def receive():
        for response in responses:
            waiting.pop(response.request_id).put(from_response(response))

    def lane(load):
        for tensor, took in load.echoes():
            answers = queue.SimpleQueue()
            request_id = str(id(answers))
            waiting[request_id] = answers
            requests.put(to_request(tensor, request_id))
            took(answers.get())

    threading.Thread(target=receive, daemon=True).start()
    say({})
    for line in sys.stdin:
        load = Load(**json.loads(line))
        try:
            with futures.ThreadPoolExecutor(load.in_flight) as lanes:
                list(lanes.map(lane, [load] * load.in_flight))
            say(load.result())
        except Exception as error:
            say({"error": repr(error)})
    requests.put(None)


class Load:
    """What load.mjs does: counts, times and checks the echoes of several lanes."""

    def __init__(self, bytes, inFlight, calls=1, ms=0):
        self.count, self.in_flight, self.calls, self.ms = bytes // 4, inFlight, calls, ms
        self.made = 0
        self.latencies = []
        self.began = time.perf_counter()

    def echoes(self):
        """Of one lane: tensors to send, each with the function that takes the answer."""
        tensor = np.zeros(self.count, np.float32)

        def took(answer):
            self.latencies.append(round((time.perf_counter() - sent) * 1e6))
            if len(answer) != len(tensor) or answer[0] != tensor[0] or answer[-1] != tensor[-1]:
                raise ValueError("the tensor that came back is another one")

        while self.made < self.calls or self.elapsed_ms() < self.ms:
            self.made += 1
            tensor[0], tensor[-1] = self.made, -self.made
            sent = time.perf_counter()
            yield tensor, took

    def elapsed_ms(self):
        return (time.perf_counter() - self.began) * 1e3

    def result(self):
        return {"ms": self.elapsed_ms(), "latencies": self.latencies}


def say(message):
    print(json.dumps(message), flush=True)


role, _, address, options = sys.argv[1:]
stream = json.loads(options).get("stream", False)
if role == "serve":
    serve_stream(address) if stream else asyncio.run(serve_unary(address))
else:
    connect_stream(address) if stream else asyncio.run(connect_unary(address))
