"""A translator behind TF Serving's REST port."""

import urllib.parse

from vq_keras.translation_client.failures import Refused, Unavailable, Unusable
from vq_keras.translation_client.served_model import ServedModel

_UNAVAILABLE = (429, 502, 503, 504)
_REFUSED = (400, 413, 422, 500)


class RestModel(ServedModel):
    """A `ServedModel` by REST; the address is http://HOST:PORT, or https, maybe with the path of a proxy.

    Example:
        >>> RestModel("http://localhost:8501", "captions").translate(["two books"])
        [Translation(text='zwei Bücher', score=-0.05, truncated=False)]
    """

    library = "requests"

    def __init__(self, address: str, name: str, **settings):
        super().__init__(address, name, **settings)
        import requests

        version = f"/versions/{self.version}" if self.version is not None else ""
        version = f"/labels/{urllib.parse.quote(self.label, safe='')}" if self.label is not None else version
        self._url = f"{address.rstrip('/')}/v1/models/{urllib.parse.quote(name, safe='')}{version}:predict"
        self._session = requests.Session()

    def _send(self, sentences, seconds):
        import requests

        body = {"signature_name": self.signature, "inputs": {"source": list(sentences)}}
        try:
            # The timeout is one of silence: a reply that trickles may take longer.
            # Where a redirection leads, nobody said that sentences may go.
            reply = self._session.post(self._url, json=body, timeout=seconds, allow_redirects=False)
        except (requests.RequestException, ValueError) as error:  # The second of an address that nobody can have.
            raise Unavailable(_reason(error)) from None
        try:
            content = reply.json()
        except requests.JSONDecodeError:
            content = {}
        code, key = reply.status_code, "outputs" if reply.status_code == 200 else "error"
        if not isinstance(content, dict) or key not in content:
            raise (Unavailable if code in _UNAVAILABLE else Unusable)(
                f"it answers {code} {reply.reason}, not as TF Serving does"
            )
        if code != 200:
            kind = Unavailable if code in _UNAVAILABLE else Refused if code in _REFUSED else Unusable
            raise kind(f"{code}: {content['error']}".splitlines()[0])
        # A signature with one output has no name for it here.
        return content["outputs"] if isinstance(content["outputs"], dict) else {}


def _reason(error):
    """What the layers below requests wrapped: "Connection refused" rather than the names of their classes."""
    while True:
        inner = getattr(error, "reason", None) or next((x for x in error.args if isinstance(x, Exception)), None)
        if not isinstance(inner, Exception):
            return str(error)
        error = inner
