"""How errors travel over real servers and channels."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest

from pixloom.errors import REASONS, InternalError, PixloomError, Problem, UnavailableError, error_from_reason
from pixloom.rpc.channel import aio_channel, sync_channel
from pixloom.rpc.server import INTERNAL_PROBLEMS_BYTES, build_server, listen
from pixloom.rpc.status import from_rpc_error
from pixloom.v1 import artifact_pb2, artifact_pb2_grpc, op_pb2, op_pb2_grpc

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.sdk.trace import TracerProvider

Serve = Callable[[Callable[[grpc.aio.Server], object]], Awaitable[str]]

PROBLEMS = (
    Problem("/nodes/0/op", "There is no op image.thumbnial; did you mean image.thumbnail?", "UNKNOWN_OP"),
    Problem("/params/größe", "Must be a number.", "INVALID_PARAM"),
)


class Ops(op_pb2_grpc.OpServiceServicer):
    """Raises the error named; counts the calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.failures = 0
        self.error: Exception = RuntimeError("postgresql://user:secret@host failed")

    async def GetOp(self, request: op_pb2.GetOpRequest, context: Any) -> op_pb2.GetOpResponse:
        self.calls += 1
        if request.name == "crash":
            raise self.error
        if request.name == "flaky" and self.calls <= self.failures:
            raise UnavailableError("Not yet.", retry_after_s=0.001)
        if request.name == "flaky":
            return op_pb2.GetOpResponse(op=op_pb2.Op(name="done"))
        raise error_from_reason(
            request.name, f"No {request.name}: größer", problems=PROBLEMS, metadata={"state": "RUNNING"}
        )

    async def ListOps(self, request: op_pb2.ListOpsRequest, context: Any) -> op_pb2.ListOpsResponse:
        return op_pb2.ListOpsResponse()


class Artifacts(artifact_pb2_grpc.ArtifactServiceServicer):
    async def GetArtifact(
        self, request: artifact_pb2.GetArtifactRequest, context: Any
    ) -> artifact_pb2.GetArtifactResponse:
        return artifact_pb2.GetArtifactResponse()

    async def DownloadArtifact(self, request: artifact_pb2.DownloadArtifactRequest, context: Any) -> Any:
        yield artifact_pb2.DownloadArtifactResponse(data=b"first")
        raise error_from_reason(request.sha256, "in the middle")

    async def UploadArtifact(self, request_iterator: Any, context: Any) -> artifact_pb2.UploadArtifactResponse:
        async for request in request_iterator:
            raise error_from_reason(request.data.decode(), "at the first chunk")
        return artifact_pb2.UploadArtifactResponse()


@pytest.fixture
def ops() -> Ops:
    return Ops()


@pytest.fixture
async def address(serve: Serve, ops: Ops) -> str:
    def register(server: grpc.aio.Server) -> None:
        op_pb2_grpc.add_OpServiceServicer_to_server(ops, server)
        artifact_pb2_grpc.add_ArtifactServiceServicer_to_server(Artifacts(), server)

    return await serve(register)


def _facts(error: PixloomError) -> tuple[object, ...]:
    return type(error), error.reason, error.message, error.problems, error.metadata


@pytest.mark.parametrize("reason", sorted(REASONS))
async def test_every_reason_arrives_as_the_error_that_was_raised(address: str, reason: str) -> None:
    expected = error_from_reason(reason, f"No {reason}: größer", problems=PROBLEMS, metadata={"state": "RUNNING"})
    no_retries = [("grpc.enable_retries", 0)]
    async with aio_channel(address, options=no_retries) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await op_pb2_grpc.OpServiceStub(channel).GetOp(op_pb2.GetOpRequest(name=reason), timeout=60)
    assert caught.value.code().name == REASONS[reason].grpc_code
    assert _facts(from_rpc_error(caught.value)) == _facts(expected)

    def call() -> PixloomError:
        with sync_channel(address, options=no_retries) as blocking:
            stub: Any = op_pb2_grpc.OpServiceStub(blocking)
            with pytest.raises(grpc.RpcError) as raised:
                stub.GetOp(op_pb2.GetOpRequest(name=reason), timeout=60)
            return from_rpc_error(raised.value)

    assert _facts(await asyncio.to_thread(call)) == _facts(expected)


async def test_error_in_the_middle_of_a_stream_follows_what_was_sent(address: str) -> None:
    async with aio_channel(address) as channel:
        call = artifact_pb2_grpc.ArtifactServiceStub(channel).DownloadArtifact(
            artifact_pb2.DownloadArtifactRequest(sha256="NOT_FOUND"), timeout=10
        )
        assert await call.read() == artifact_pb2.DownloadArtifactResponse(data=b"first")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert (from_rpc_error(caught.value).reason, str(from_rpc_error(caught.value))) == ("NOT_FOUND", "in the middle")


async def test_error_while_the_client_streams(address: str) -> None:
    async def chunks() -> Any:
        yield artifact_pb2.UploadArtifactRequest(data=b"TOO_LARGE")

    async with aio_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await artifact_pb2_grpc.ArtifactServiceStub(channel).UploadArtifact(chunks(), timeout=60)
    assert from_rpc_error(caught.value).reason == "TOO_LARGE"


async def test_text_of_an_unexpected_error_never_leaves_the_service(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with aio_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await op_pb2_grpc.OpServiceStub(channel).GetOp(op_pb2.GetOpRequest(name="crash"), timeout=60)
    error = from_rpc_error(caught.value)
    assert (type(error), error.reason) == (InternalError, "INTERNAL")
    trace_id = dict(caught.value.trailing_metadata())["x-trace-id"]
    assert error.metadata == {"trace_id": trace_id}
    assert str(trace_id) in error.message
    assert "secret" not in repr(caught.value) + repr(caught.value.trailing_metadata())
    assert "secret" in capsys.readouterr().out, "the log has the details"


async def test_idempotent_call_is_repeated_until_the_service_is_back(address: str, ops: Ops) -> None:
    ops.failures = 2
    async with aio_channel(address) as channel:
        response = await op_pb2_grpc.OpServiceStub(channel).GetOp(op_pb2.GetOpRequest(name="flaky"), timeout=60)
    assert (response.op.name, ops.calls) == ("done", 3)


async def test_time_to_come_back_arrives(address: str, ops: Ops) -> None:
    ops.error = UnavailableError("Later.", retry_after_s=1.5)
    async with aio_channel(address, options=[("grpc.enable_retries", 0)]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await op_pb2_grpc.OpServiceStub(channel).GetOp(op_pb2.GetOpRequest(name="crash"), timeout=60)
    assert from_rpc_error(caught.value).retry_after_s == 1.5


MANY = tuple(Problem(f"/nodes/{number}", "ß" * 30) for number in range(3000))


async def test_worst_case_of_problems_still_arrives_at_a_client_with_default_options(address: str, ops: Ops) -> None:
    ops.error = error_from_reason("INVALID_WORKFLOW", "ß" * 100_000, problems=MANY)
    async with grpc.aio.insecure_channel(address) as channel:
        for _ in range(20):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await op_pb2_grpc.OpServiceStub(channel).GetOp(op_pb2.GetOpRequest(name="crash"), timeout=60)
            error = from_rpc_error(caught.value)
            assert error.reason == "INVALID_WORKFLOW"
            assert error.problems == MANY[: len(error.problems)]
            assert error.metadata == {"problems_omitted": str(len(MANY) - len(error.problems))}
            assert len(error.problems) > 10


async def test_hundreds_of_problems_arrive_between_our_own_parts(
    socket_folder: Path, provider: TracerProvider, ops: Ops
) -> None:
    server = build_server(tracer_provider=provider, problems_bytes=INTERNAL_PROBLEMS_BYTES)
    op_pb2_grpc.add_OpServiceServicer_to_server(ops, server)
    address = f"unix:{socket_folder}/own"
    listen(server, address)
    await server.start()
    ops.error = error_from_reason("INVALID_WORKFLOW", "x", problems=MANY)
    async with aio_channel(address) as channel:
        for _ in range(20):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await op_pb2_grpc.OpServiceStub(channel).GetOp(op_pb2.GetOpRequest(name="crash"), timeout=60)
            assert len(from_rpc_error(caught.value).problems) > 300
    await server.stop(None)


async def test_peer_that_is_not_there_is_unavailable(socket_folder: Path) -> None:
    async with aio_channel(f"unix:{socket_folder}/none", options=[("grpc.enable_retries", 0)]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await op_pb2_grpc.OpServiceStub(channel).ListOps(op_pb2.ListOpsRequest(), timeout=60)
    error = from_rpc_error(caught.value)
    assert (type(error), error.metadata) == (UnavailableError, {"grpc_code": "UNAVAILABLE"})


async def test_method_that_is_not_there_is_not_supported(address: str) -> None:
    async with aio_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cast("Any", channel).unary_unary("/pixloom.v1.OpService/Nothing")(b"", timeout=60)
    assert from_rpc_error(caught.value).reason == "NOT_SUPPORTED"


async def test_port_in_use_is_a_machine_error_with_a_remedy(provider: TracerProvider) -> None:
    first = build_server(tracer_provider=provider)
    port = listen(first, "127.0.0.1:0")
    second = build_server(tracer_provider=provider)
    with pytest.raises(PixloomError, match=f"127.0.0.1:{port} cannot be bound: another process uses it") as caught:
        listen(second, f"127.0.0.1:{port}")
    assert caught.value.reason == "ENVIRONMENT"
    await first.stop(None)
    await second.stop(None)


async def test_server_does_not_listen_beyond_loopback(provider: TracerProvider) -> None:
    server = build_server(tracer_provider=provider)
    with pytest.raises(PixloomError, match="loopback only"):
        listen(server, "0.0.0.0:0")
    await server.stop(None)
