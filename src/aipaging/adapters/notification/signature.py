"""HTTP Message Signatures (RFC 9421) with a content digest (RFC 9530), Ed25519.

Covered are the method, the whole target, the media type and the digest of the body, with the time of signing: a
notification cannot be altered, sent elsewhere, or kept for later without the receiver noticing. The key is in the
operator's published key set under the signature's `keyid`, and signs nothing else.
"""

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from aipaging.ports.notification import MessageSigner

LABEL: Final = "aipaging"
TAG: Final = "aipaging-event"
"""RFC 9421, 2.3: says which application the signature is for."""

MEDIA_TYPE: Final = "application/cloudevents+json; charset=utf-8"
COMPONENTS: Final = ("@method", "@target-uri", "content-type", "content-digest")


def signed_headers(signer: MessageSigner, *, url: str, body: bytes, created_s: int) -> Mapping[str, str]:
    """Return the headers of a signed POST.

    Args:
        signer: Holds the key.
        url: The target, as the receiver knows it.
        body: The whole body.
        created_s: Now, seconds since the epoch.
    """
    headers = {"content-type": MEDIA_TYPE, "content-digest": content_digest(body)}
    covered = " ".join(f'"{component}"' for component in COMPONENTS)
    parameters = f'({covered});created={created_s};keyid="{signer.key_id}";alg="ed25519";tag="{TAG}"'
    signature = signer.sign(signature_base("POST", url, headers, parameters))
    return {
        **headers,
        "signature-input": f"{LABEL}={parameters}",
        "signature": f"{LABEL}=:{b64encode(signature).decode()}:",
    }


def content_digest(body: bytes) -> str:
    """Return the digest of a body (RFC 9530, 2)."""
    return f"sha-256=:{b64encode(sha256(body).digest()).decode()}:"


def signature_base(method: str, url: str, headers: Mapping[str, str], parameters: str) -> bytes:
    """Return what is signed (RFC 9421, 2.5).

    Args:
        method: Of the request.
        url: The target.
        headers: Hold `content-type` and `content-digest`.
        parameters: The value of the label in `signature-input`.
    """
    values = {"@method": method, "@target-uri": url, **headers}
    lines = [f'"{component}": {values[component]}' for component in COMPONENTS]
    return "\n".join([*lines, f'"@signature-params": {parameters}']).encode("ascii")
