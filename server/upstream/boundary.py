"""The last boundary around a dialect: whatever its code raises beside the gateway's errors becomes one of them.

Providers send what no translator foresaw. An answer, a stream or an error that its translator cannot read is an
`upstream_invalid_response`, after which the next endpoint is tried. A request that it cannot build is a fault of
the gateway, which skips this endpoint only. Both are logged with the dialect and their traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from lmchat.v1 import chat_pb2 as pb

from server.chat.completion import Completion
from server.chat.request import ChatRequest
from server.dialects.base import Endpoint, HttpRequest, StreamDecoder, Translator
from server.dialects.errors import invalid_response
from server.errors import LmchatError, ProviderError, TranslationError

log = logging.getLogger("lmchat.dialects")


class BoundedTranslator:
    """`translator`, raising nothing but LmchatErrors; see base.Translator."""

    def __init__(self, dialect: str, translator: Translator) -> None:
        self._dialect = dialect
        self._translator = translator

    def request(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> HttpRequest:
        """The provider's request. Raises InvalidRequest, a TranslationError where it could not be built."""
        try:
            return self._translator.request(request, endpoint, stream=stream)
        except LmchatError:
            raise
        except Exception:
            log.exception("%s: no request could be built for %s", self._dialect, endpoint.id)
            raise TranslationError from None

    def completion(self, body: bytes, request: ChatRequest) -> Completion:
        """The answer, in its typed form where that is what `request` needs. Raises ProviderError."""
        try:
            completion = self._translator.completion(body, request)
        except LmchatError:
            raise
        except Exception as error:
            raise unreadable(self._dialect, "answer", error) from None
        if not request.typed:
            return completion
        try:
            return completion.typed()
        except Exception as error:  # InvalidRequest included: the invalid value is the provider's
            raise unreadable(self._dialect, "answer", error) from None

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The error of a non-2xx response."""
        try:
            return self._translator.error(status, headers, body)
        except Exception as error:
            return unreadable(self._dialect, "error", error, status)

    def decoder(self, request: ChatRequest) -> StreamDecoder:
        """A new decoder for one stream."""
        return BoundedDecoder(self._dialect, self._translator.decoder(request))


class BoundedDecoder:
    """`decoder`, raising nothing but LmchatErrors; see base.StreamDecoder."""

    __slots__ = ("_decoder", "_dialect")

    def __init__(self, dialect: str, decoder: StreamDecoder) -> None:
        self._dialect = dialect
        self._decoder = decoder

    def feed(self, data: bytes) -> list[pb.ChatCompletionChunk]:
        """Decode what `data` completes. Raises ProviderError."""
        try:
            return self._decoder.feed(data)
        except LmchatError:
            raise
        except Exception as error:
            raise unreadable(self._dialect, "stream", error) from None

    def close(self) -> list[pb.ChatCompletionChunk]:
        """Signal the end of the bytes. Raises ProviderError."""
        try:
            return self._decoder.close()
        except LmchatError:
            raise
        except Exception as error:
            raise unreadable(self._dialect, "end of the stream", error) from None

    @property
    def native_finish_reason(self) -> str:
        """The provider's untranslated finish reason; empty until the end."""
        return self._decoder.native_finish_reason

    @property
    def finished(self) -> bool:
        """Every choice has its finish reason."""
        return self._decoder.finished


def unreadable(dialect: str, what: str, error: Exception, status: int = 200) -> ProviderError:
    """The error for a provider's `what` with this HTTP status, on which code of the gateway raised `error`."""
    log.error("%s: the provider's %s could not be read", dialect, what, exc_info=error)
    return invalid_response(f"{dialect}: {what}: {type(error).__name__}", http_status=status)
