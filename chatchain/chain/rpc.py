"""JSON-RPC over HTTP to one endpoint, and the agreement of several.

`Rpc` speaks to one URL: pooled connections, batches, a deadline and a bound on the size of an answer.
Whatever goes wrong on the way becomes ChainUnreachable; an error that the node itself reports stays an
RpcFault with its code and data, because reverts travel that way.

`Endpoints` puts one question to several endpoints at once. Their answers are grouped, and the first group
that reaches the quorum (a majority, unless told otherwise) is the answer: an endpoint that lies, lags or
fails is outvoted, and where no group gets that far EndpointsDisagree tells who said what. With one endpoint
its word is taken; `doctor` says so.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec
import urllib3

from chatchain.errors import BadConfig, ChainError, ChainUnreachable, EndpointsDisagree, WrongChain
from chatchain.model import Address

TIMEOUT: Final = 10.0
"""Seconds without a byte after which an endpoint counts as unreachable."""

ANSWER_TIME: Final = 30.0
"""Seconds for the head of one answer, and for the whole of its body, however steadily they trickle."""

MAX_RESPONSE: Final = 32 * 1024 * 1024
"""Bytes of one answer; about 25,000 events. A range of logs that exceeds it is asked for in halves."""

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_BATCH: Final = 100
"""Calls in one HTTP request; public endpoints commonly refuse more."""

MAX_REASON: Final = 300
"""Characters of a node's own words that are passed on."""

_CHUNK: Final = 1 << 20
_BOTH_WAYS: Final = 2  # socket.SHUT_RDWR

T = TypeVar("T")


class Request(NamedTuple):
    """One call of a batch."""

    method: str
    params: tuple[object, ...] = ()


class RpcFault(ChainError):
    """The node understood the call and answered with an error of its own."""

    code = "rpc_fault"

    def __init__(self, url: str, method: str, number: int, message: str, data: object) -> None:
        if len(message) > MAX_REASON:
            message = f"{message[:MAX_REASON]}…"
        super().__init__(f"The endpoint {url} refused {method}: {message}")
        self.method = method
        self.number = number
        self.reason = message
        self.data = data


class AnswerTooLarge(ChainUnreachable):
    """An endpoint's answer exceeds what is read."""

    code = "answer_too_large"


class _ErrorObject(msgspec.Struct):
    code: int = 0
    message: str = ""
    data: object = None


class _Response(msgspec.Struct):
    id: int | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _ErrorObject | None = None


_RESPONSES: Final = msgspec.json.Decoder(list[_Response] | _Response)


class _Watched:
    """A connection whose answer's head must be there in time: a byte now and then would never time out."""

    sock: Any
    host: str

    def getresponse(self) -> Any:
        """Waits for the head of an answer; raises ChainUnreachable when it takes too long."""
        sock, late = self.sock, threading.Event()

        def give_up() -> None:
            late.set()
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(_BOTH_WAYS)

        watch = threading.Timer(ANSWER_TIME, give_up)
        watch.daemon = True
        watch.start()
        try:
            response = super().getresponse()  # type: ignore[misc]  # of the mixed-in class
        except Exception:
            if not late.is_set():
                raise
        else:
            if not late.is_set():  # a head that was cut short counts as whole
                return response
        finally:
            watch.cancel()
        raise ChainUnreachable(f"The endpoint {self.host} takes too long over one answer.")


class _Connection(_Watched, urllib3.connection.HTTPConnection):
    """Without TLS."""


class _TlsConnection(_Watched, urllib3.connection.HTTPSConnection):
    """With TLS."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class Rpc:
    """One endpoint. May be used from several threads."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT, max_response: int = MAX_RESPONSE) -> None:
        self.name = _public_name(url)
        self._url = url
        self._max_response = max_response
        self._pool = urllib3.PoolManager(
            maxsize=8,
            timeout=urllib3.Timeout(connect=min(timeout, 5.0), read=timeout),
            retries=urllib3.Retry(total=False, redirect=False),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
        )
        self._pool.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def close(self) -> None:
        """Closes the idle connections."""
        self._pool.clear()

    def call(self, method: str, *params: object) -> object:
        """One call, its result as plain JSON values; raises RpcFault or ChainUnreachable."""
        return self.plain(self.batch([Request(method, params)])[0])

    def batch(self, requests: Sequence[Request]) -> list[msgspec.Raw]:
        """Several calls in one round trip, results in order; raises RpcFault or ChainUnreachable."""
        results = []
        for result in self.try_batch(requests):
            if isinstance(result, RpcFault):
                raise result
            results.append(result)
        return results

    def try_batch(self, requests: Sequence[Request]) -> list[msgspec.Raw | RpcFault]:
        """As `batch`, with the faults in their places instead of raised."""
        results: list[msgspec.Raw | RpcFault] = []
        for start in range(0, len(requests), MAX_BATCH):
            results += self._exchange(requests[start : start + MAX_BATCH])
        return results

    def plain(self, raw: msgspec.Raw) -> object:
        """Plain JSON values of a result."""
        return self.read(raw, object)

    def read(self, raw: msgspec.Raw, kind: type[T]) -> T:
        """A result as a typed value; one that is none of that type counts as no answer."""
        try:
            value: T = msgspec.json.decode(raw, type=kind)
            return value
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ChainUnreachable(
                f"The endpoint {self.name} gave an answer that cannot be read: {error}."
            ) from error

    def _exchange(self, requests: Sequence[Request]) -> list[msgspec.Raw | RpcFault]:
        calls = [
            {"jsonrpc": "2.0", "id": number, "method": request.method, "params": request.params}
            for number, request in enumerate(requests)
        ]
        # A batch of one is sent bare: some endpoints know no batches at all.
        body = msgspec.json.encode(calls if len(calls) > 1 else calls[0])
        answer = self._post(body)
        try:
            decoded = _RESPONSES.decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ChainUnreachable(
                f"The endpoint {self.name} does not answer in JSON-RPC: {error}."
            ) from error
        if isinstance(decoded, list):
            return self._in_order(requests, decoded)
        if len(requests) > 1:  # an endpoint that refuses batches answers all of one with a single error
            return [result for request in requests for result in self._exchange([request])]
        return [self._result(requests[0], decoded)]

    def _in_order(
        self, requests: Sequence[Request], responses: list[_Response]
    ) -> list[msgspec.Raw | RpcFault]:
        by_id = {response.id: response for response in responses}
        try:
            return [self._result(request, by_id[number]) for number, request in enumerate(requests)]
        except KeyError:
            raise ChainUnreachable(
                f"The endpoint {self.name} left a part of the question unanswered."
            ) from None

    def _result(self, request: Request, response: _Response) -> msgspec.Raw | RpcFault:
        if response.error is None:
            return response.result
        error = response.error
        return RpcFault(self.name, request.method, error.code, error.message, error.data)

    def _post(self, body: bytes) -> bytes:
        try:
            try:
                status, data = self._exchange_bytes(body)
            except urllib3.exceptions.ProtocolError:
                # An idle connection that the endpoint closes just now; every call here may be made twice.
                status, data = self._exchange_bytes(body)
        except urllib3.exceptions.HTTPError as error:
            raise ChainUnreachable(
                f"The endpoint {self.name} does not answer: {_why(error)}.", _hint(self._url)
            ) from error
        # Some nodes report a JSON-RPC error with a status of 4xx; anything else that is not 200 is no node.
        if status != 200 and not data.lstrip().startswith((b"{", b"[")):
            raise ChainUnreachable(f"The endpoint {self.name} answers with HTTP status {status}.")
        return data

    def _exchange_bytes(self, body: bytes) -> tuple[int, bytes]:
        response = self._pool.request("POST", self._url, body=body, preload_content=False)
        try:
            return response.status, self._bounded(response)
        finally:
            response.release_conn()

    def _bounded(self, response: urllib3.BaseHTTPResponse) -> bytes:
        parts, total, end = [], 0, time.monotonic() + ANSWER_TIME
        # Nothing was said about accepting compression, so nothing is unpacked: a small answer stays small.
        while part := response.read1(_CHUNK, decode_content=False):
            total += len(part)
            if time.monotonic() > end:
                response.close()
                raise ChainUnreachable(f"The endpoint {self.name} takes too long over one answer.")
            if total > self._max_response:
                response.close()  # the rest of the answer must not be read into the next one
                raise AnswerTooLarge(
                    f"The endpoint {self.name} sends more than {self._max_response >> 20} MiB in one answer."
                )
            parts.append(part)
        return b"".join(parts)


def _hint(url: str) -> str:
    """What to do about an endpoint that does not answer; on this machine it was a development network."""
    if urlsplit(url).hostname not in LOOPBACK:
        return ""
    return f"{ChainUnreachable.default_hint} `python deploy/devnet.py up` starts a development network again."


def _public_name(url: str) -> str:
    """The URL without what may be a secret: user, password, path and query often carry an access key."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadConfig(
            "The URL of an RPC endpoint cannot be read.",
            "Write it as http://HOST:PORT or https://HOST/PATH (--rpc, RPC_URL).",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"


def _why(error: Exception) -> str:
    """A few words for a person; the library's own text repeats the URL, key and all."""
    for kind, words in (  # the narrower kinds first
        (urllib3.exceptions.NameResolutionError, "its host name is unknown"),
        (urllib3.exceptions.NewConnectionError, "the connection is refused"),
        (urllib3.exceptions.ConnectTimeoutError, "it cannot be reached in time"),
        (urllib3.exceptions.ReadTimeoutError, "it stays silent"),
        (urllib3.exceptions.SSLError, "its TLS certificate is not accepted"),
        (urllib3.exceptions.LocationValueError, "that is not a URL of the form http://host:port"),
    ):
        if isinstance(error, kind):
            return words
    return "the connection broke off"


class _Said(NamedTuple, Generic[T]):
    """One endpoint's answer."""

    endpoint: Rpc
    value: T


class _Failed(NamedTuple):
    """Why one endpoint gave none."""

    endpoint: Rpc
    failure: ChainError


class Endpoints:
    """Several endpoints of one chain, of which `quorum` must tell the same story."""

    def __init__(self, urls: Sequence[str], *, quorum: int | None = None, timeout: float = TIMEOUT) -> None:
        unique = list(dict.fromkeys(urls))
        if not unique:
            raise ChainUnreachable("No RPC endpoint is configured.")
        self.all: tuple[Rpc, ...] = tuple(Rpc(url, timeout=timeout) for url in unique)
        self.quorum = quorum if quorum is not None else len(unique) // 2 + 1
        if not 1 <= self.quorum <= len(unique):
            raise ChainUnreachable(f"{self.quorum} of {len(unique)} endpoints cannot agree.")

    def close(self) -> None:
        """Closes the idle connections of all endpoints."""
        for endpoint in self.all:
            endpoint.close()

    def agree(
        self,
        question: Callable[[Rpc], T],
        *,
        key: Callable[[T], Hashable] = repr,
        tell: Callable[[T], str] = str,
    ) -> T:
        """The answer that `quorum` endpoints give alike.

        `key` says what must be equal and `tell` puts an answer into words. Raises EndpointsDisagree; when no
        endpoint answers, or there is only one, the endpoint's own failure.
        """
        if len(self.all) == 1:
            return question(self.all[0])
        groups: dict[Hashable, int] = {}  # how many said the same
        answers: list[_Said[T] | _Failed] = []
        for answer in self._ask(question):
            answers.append(answer)
            if isinstance(answer, _Said):
                value: T = answer.value
                alike = key(value)
                groups[alike] = groups.get(alike, 0) + 1
                if groups[alike] >= self.quorum:
                    return value
        raise self._disagreement(answers, tell)

    def each(self, question: Callable[[Rpc], T]) -> list[tuple[Rpc, T]]:
        """What every endpoint that answers says; raises when fewer than the quorum do."""
        if len(self.all) == 1:
            return [(self.all[0], question(self.all[0]))]
        answers = list(self._ask(question))
        good = [(answer.endpoint, answer.value) for answer in answers if isinstance(answer, _Said)]
        if len(good) < self.quorum:
            raise self._disagreement(answers, lambda value: "it answers")
        return good

    def first(self, question: Callable[[Rpc], T]) -> T:
        """The first endpoint's answer, or the next one's when it is unreachable."""
        failure: ChainUnreachable | None = None
        for endpoint in self.all:
            try:
                return question(endpoint)
            except ChainUnreachable as error:
                failure = error
        assert failure is not None
        raise failure

    def _ask(self, question: Callable[[Rpc], T]) -> Iterator[_Said[T] | _Failed]:
        """Asks all at once and yields answers as they come; who stops listening waits for no slow one."""
        answers: queue.SimpleQueue[_Said[T] | _Failed | Exception] = queue.SimpleQueue()

        def put(endpoint: Rpc) -> None:
            try:
                answers.put(_Said(endpoint, question(endpoint)))
            except ChainError as failure:
                answers.put(_Failed(endpoint, failure))
            except Exception as bug:  # carried over to the thread that asked
                answers.put(bug)

        for endpoint in self.all:
            threading.Thread(target=put, args=(endpoint,), daemon=True).start()
        for _ in self.all:
            answer = answers.get()
            if isinstance(answer, Exception):
                raise answer
            yield answer

    def _disagreement(self, answers: Sequence[_Said[T] | _Failed], tell: Callable[[T], str]) -> ChainError:
        failures = [answer.failure for answer in answers if isinstance(answer, _Failed)]
        if len(failures) == len(answers):
            return failures[0]
        said = "; ".join(
            f"{answer.endpoint.name}: {tell(answer.value) if isinstance(answer, _Said) else answer.failure}"
            for answer in sorted(answers, key=lambda answer: self.all.index(answer.endpoint))
        )
        return EndpointsDisagree(
            f"Fewer than {self.quorum} of {len(self.all)} RPC endpoints tell the same story ({said}).",
            "Ask again in a moment; if it stays, one of them is wrong or lying: name other endpoints "
            "with --rpc.",
        )


# --- the few values of Ethereum's JSON-RPC that are read here -------------------------------------------


class Header(msgspec.Struct, rename="camel", frozen=True):
    """A block as `eth_getBlockByNumber` describes it, so far as it is used; quantities and hashes in hex."""

    number: str
    hash: str
    parent_hash: str
    timestamp: str
    base_fee_per_gas: str | None = None


def quantity(text: object) -> int:
    """An integer from JSON-RPC's hex; only a broken endpoint sends anything else (ChainUnreachable)."""
    if isinstance(text, str) and text.startswith("0x") and len(text) <= 66:
        try:
            return int(text, 16)
        except ValueError:
            pass
    raise ChainUnreachable("An endpoint gave an answer that is not a number.")


def unhex(text: object) -> bytes:
    """Bytes from JSON-RPC's hex; raises ChainUnreachable as `quantity` does."""
    if isinstance(text, str) and text.startswith("0x"):
        try:
            return bytes.fromhex(text[2:])
        except ValueError:
            pass
    raise ChainUnreachable("An endpoint gave an answer that is not hexadecimal.")


def hexed(data: bytes) -> str:
    """Bytes as JSON-RPC writes them."""
    return "0x" + data.hex()


def eth_call(to: Address, data: bytes, block: str = "latest", sender: Address | None = None) -> Request:
    """The request that runs a call without sending it."""
    transaction = {"to": hexed(to), "data": hexed(data)}
    if sender is not None:
        transaction["from"] = hexed(sender)
    return Request("eth_call", (transaction, block))


def require_chain(endpoint: Rpc, told: object, expected: int) -> None:
    """Refuses an endpoint that serves another chain."""
    chain_id = quantity(told)
    if chain_id != expected:
        raise WrongChain(
            f"The endpoint {endpoint.name} serves chain {chain_id}, and this network lives on chain "
            f"{expected}.",
            "Give the RPC URL of the right chain with --rpc (RPC_URL).",
        )
