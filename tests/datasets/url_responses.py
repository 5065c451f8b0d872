"""Replacements for `urlopen` in tests of downloads."""

import http.client
import io
import urllib.error

import pytest


class Response(io.BytesIO):
    """A complete response to a request for `url`."""

    def __init__(self, url: str, content: bytes) -> None:
        super().__init__(content)
        self.url, self.length = url, len(content)


class BrokenResponse(Response):
    """Returns the first bytes of the content and then raises `error`."""

    def __init__(self, url: str, error: BaseException) -> None:
        super().__init__(url, b"first half")
        self.error = error

    def read(self, size=-1):
        if self.tell():
            raise self.error
        return super().read(size)


each_download_error = pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("connection reset"),
        TimeoutError("timed out\nafter a while"),
        http.client.IncompleteRead(b"first half"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
