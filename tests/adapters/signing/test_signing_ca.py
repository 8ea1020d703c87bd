import dataclasses
import datetime as dt
import os
import ssl
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from aipaging.adapters.signing.ca import (
    CERTIFICATE_LIFETIME_S,
    CertificateAuthority,
    renewal_due_us,
    signing_request,
    store_chain,
)
from aipaging.adapters.signing.peer import client_context, identity_of, server_context
from aipaging.core.foundation.errors import AipagingError, InvalidInputError, RefusedError, UnverifiedError
from aipaging.core.foundation.time import SECOND

DOMAIN = "operator.example"


@pytest.fixture
def authority(tmp_path):
    return CertificateAuthority.open(tmp_path / "ca", DOMAIN)


def request_for(key, names=("spiffe://operator.example/controller/evil",)):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    alternatives = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name) for name in names])
    return builder.add_extension(alternatives, critical=False).sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def leaf_of(chain_pem):
    return x509.load_pem_x509_certificates(chain_pem)[0]


def identity(chain_pem, trust_domain=DOMAIN):
    return identity_of(leaf_of(chain_pem).public_bytes(Encoding.DER), trust_domain=trust_domain)


def handshake(server_side, client_side, *, server_name="localhost"):
    """Run a TLS handshake in memory and return both ends."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    client = client_side.wrap_bio(to_client, to_server, server_hostname=server_name)
    for _ in range(8):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    # In TLS 1.3 the client is done before the server has judged its certificate.
    server.do_handshake()
    return server, client


def test_the_authority_is_made_once_with_a_private_key_file(tmp_path):
    first = CertificateAuthority.open(tmp_path / "ca", DOMAIN)
    second = CertificateAuthority.open(tmp_path / "ca", DOMAIN)
    assert first.certificate_pem == second.certificate_pem
    assert stat.S_IMODE((tmp_path / "ca" / "ca-key.pem").stat().st_mode) == 0o600
    shown = repr(first).replace(repr(first.certificate_pem), "")  # any letters may stand in a certificate
    assert "KEY" not in shown.replace("ca-key", "")


def test_an_authority_whose_certificate_was_lost_is_rebuilt_from_its_key(tmp_path, authority):
    chain = authority.issue("anchor", "edge-1", public_key=ec.generate_private_key(ec.SECP256R1()).public_key())
    (tmp_path / "ca" / "ca.pem").unlink()
    again = CertificateAuthority.open(tmp_path / "ca", DOMAIN)
    leaf_of(chain).verify_directly_issued_by(x509.load_pem_x509_certificate(again.certificate_pem))


def test_another_trust_domain_or_key_is_refused(tmp_path, authority):
    with pytest.raises(AipagingError) as caught:
        CertificateAuthority.open(tmp_path / "ca", "other.example")
    assert caught.value.code == "TRUST_DOMAIN_CHANGED"
    CertificateAuthority.open(tmp_path / "ca2", DOMAIN)
    (tmp_path / "ca" / "ca.pem").write_bytes((tmp_path / "ca2" / "ca.pem").read_bytes())
    with pytest.raises(AipagingError) as caught:
        CertificateAuthority.open(tmp_path / "ca", DOMAIN)
    assert caught.value.code == "KEY_FILE_UNREADABLE"


@pytest.mark.parametrize("name", ["ca.pem", "ca-key.pem"])
def test_files_that_hold_something_else_are_refused(tmp_path, authority, name):
    (tmp_path / "ca" / name).write_text("garbage")
    with pytest.raises(AipagingError) as caught:
        CertificateAuthority.open(tmp_path / "ca", DOMAIN)
    assert caught.value.code == "KEY_FILE_UNREADABLE"


@pytest.mark.parametrize("role", ["controller", "gateway", "anchor"])
def test_a_certificate_carries_one_identity(authority, role):
    key = ec.generate_private_key(ec.SECP256R1())
    chain = authority.issue(
        role, "node-1", public_key=key.public_key(), dns_names=["node.example"], addresses=["127.0.0.1", "::1"]
    )
    assert identity(chain) == (role, "node-1")
    leaf = leaf_of(chain)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://{DOMAIN}/{role}/node-1"]
    assert names.get_values_for_type(x509.DNSName) == ["node.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    length = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert length == dt.timedelta(seconds=CERTIFICATE_LIFETIME_S + 300)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Upper"},
        {"name": "a/b"},
        {"name": ""},
        {"lifetime_s": 0},
        {"lifetime_s": 10**9},
        {"addresses": ["300.1.1.1"]},
        {"dns_names": ["é.example"]},
        {"dns_names": ["a.example"] * 33},
        {"public_key": ec.generate_private_key(ec.SECP384R1()).public_key()},
    ],
)
def test_requests_that_make_no_certificate(authority, change):
    given = {"name": "edge-1", "public_key": ec.generate_private_key(ec.SECP256R1()).public_key(), **change}
    with pytest.raises(InvalidInputError):
        authority.issue("anchor", given.pop("name"), **given)


def test_an_expired_authority_issues_nothing(authority):
    end = x509.load_pem_x509_certificate(authority.certificate_pem).not_valid_after_utc
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    nearly = dataclasses.replace(authority, _clock=lambda: int(end.timestamp() - 60) * SECOND)
    assert leaf_of(nearly.issue("anchor", "edge-1", public_key=key)).not_valid_after_utc == end
    over = dataclasses.replace(authority, _clock=lambda: int(end.timestamp()) * SECOND)
    with pytest.raises(AipagingError) as caught:
        over.issue("anchor", "edge-1", public_key=key)
    assert caught.value.code == "AUTHORITY_EXPIRED"


def test_a_renewal_takes_the_name_from_the_peer_and_not_from_the_request(authority):
    key = ec.generate_private_key(ec.SECP256R1())
    chain = authority.renew_from_csr(request_for(key), "anchor", "edge-1")
    assert identity(chain) == ("anchor", "edge-1")
    assert leaf_of(chain).public_key() == key.public_key()


def test_a_request_that_its_key_did_not_sign_is_refused(authority):
    mine, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    der = x509.load_pem_x509_csr(request_for(other)).public_bytes(Encoding.DER)
    assert _point(other) in der
    stolen = x509.load_der_x509_csr(der.replace(_point(other), _point(mine))).public_bytes(Encoding.PEM)
    with pytest.raises(UnverifiedError) as caught:
        authority.renew_from_csr(stolen, "anchor", "edge-1")
    assert caught.value.code == "CSR_SIGNATURE"


def _point(key):
    numbers = key.public_key().public_numbers()
    return b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


@pytest.mark.parametrize("content", [b"", b"garbage", b"x" * 100_000])
def test_a_malformed_request_is_refused(authority, content):
    with pytest.raises(UnverifiedError) as caught:
        authority.renew_from_csr(content, "gateway", "gw-1")
    assert caught.value.code == "CSR_MALFORMED"


def test_other_keys_and_roles_do_not_renew(authority):
    rsa_request = request_for(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    with pytest.raises(UnverifiedError):
        authority.renew_from_csr(rsa_request, "gateway", "gw-1")
    with pytest.raises(RefusedError):
        authority.renew_from_csr(request_for(ec.generate_private_key(ec.SECP256R1())), "controller", "c-1")


@pytest.fixture
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("usual_umask")
def test_an_identity_is_written_renewed_and_keeps_its_key(authority, tmp_path):
    directory = tmp_path / "edge-1"
    authority.write_identity(directory, "anchor", "edge-1")
    key = (directory / "key.pem").read_bytes()
    first = (directory / "cert.pem").read_bytes()
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {
        "key.pem": 0o600,
        "cert.pem": 0o644,
        "ca.pem": 0o644,
    }
    store_chain(directory, authority.renew_from_csr(signing_request(directory), "anchor", "edge-1"))
    assert (directory / "key.pem").read_bytes() == key
    assert (directory / "cert.pem").read_bytes() != first
    authority.write_identity(directory, "anchor", "edge-1")
    assert (directory / "key.pem").read_bytes() == key


def test_a_chain_for_another_key_is_not_stored(authority, tmp_path):
    authority.write_identity(tmp_path / "edge-1", "anchor", "edge-1")
    before = (tmp_path / "edge-1" / "cert.pem").read_bytes()
    other = authority.issue("anchor", "edge-1", public_key=ec.generate_private_key(ec.SECP256R1()).public_key())
    for chain in (other, b"garbage"):
        with pytest.raises(UnverifiedError):
            store_chain(tmp_path / "edge-1", chain)
    assert (tmp_path / "edge-1" / "cert.pem").read_bytes() == before


def test_renewal_is_due_before_half_life(authority, tmp_path):
    authority.write_identity(tmp_path / "edge-1", "anchor", "edge-1")
    leaf = leaf_of((tmp_path / "edge-1" / "cert.pem").read_bytes())
    begin, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    assert begin * SECOND < renewal_due_us(tmp_path / "edge-1") < (begin + end) / 2 * SECOND
    with pytest.raises(AipagingError, match="enrol"):
        renewal_due_us(tmp_path)


def test_mutual_tls_between_two_identities(authority, tmp_path):
    authority.write_identity(tmp_path / "c", "controller", "c-1", dns_names=["localhost"])
    authority.write_identity(tmp_path / "g", "gateway", "gw-1")
    server, client = handshake(server_context(tmp_path / "c"), client_context(tmp_path / "g"))
    assert identity_of(server.getpeercert(), trust_domain=DOMAIN) == ("gateway", "gw-1")
    assert identity_of(client.getpeercert(binary_form=True), trust_domain=DOMAIN) == ("controller", "c-1")
    assert server.version() in {"TLSv1.2", "TLSv1.3"}


def test_no_certificate_no_entry(authority, tmp_path):
    authority.write_identity(tmp_path / "c", "controller", "c-1", dns_names=["localhost"])
    bare = ssl.create_default_context(cafile=tmp_path / "c" / "ca.pem")
    with pytest.raises(ssl.SSLError):
        handshake(server_context(tmp_path / "c"), bare)


def test_a_certificate_of_another_authority_is_refused(authority, tmp_path):
    authority.write_identity(tmp_path / "c", "controller", "c-1", dns_names=["localhost"])
    CertificateAuthority.open(tmp_path / "ca2", DOMAIN).write_identity(tmp_path / "g", "gateway", "gw-1")
    (tmp_path / "g" / "ca.pem").write_bytes((tmp_path / "c" / "ca.pem").read_bytes())
    with pytest.raises(ssl.SSLError):
        handshake(server_context(tmp_path / "c"), client_context(tmp_path / "g"))


def test_an_expired_certificate_is_refused(authority, tmp_path):
    authority.write_identity(tmp_path / "c", "controller", "c-1", dns_names=["localhost"])
    past = dataclasses.replace(authority, _clock=lambda: authority._clock() - 7_200 * SECOND)
    past.write_identity(tmp_path / "g", "gateway", "gw-1", lifetime_s=3_600)
    with pytest.raises(ssl.SSLError, match="expired"):
        handshake(server_context(tmp_path / "c"), client_context(tmp_path / "g"))


def test_the_host_name_is_checked(authority, tmp_path):
    authority.write_identity(tmp_path / "c", "controller", "c-1", dns_names=["localhost"])
    authority.write_identity(tmp_path / "g", "gateway", "gw-1")
    with pytest.raises(ssl.SSLError):
        handshake(server_context(tmp_path / "c"), client_context(tmp_path / "g"), server_name="other.example")
    relaxed = client_context(tmp_path / "g", check_hostname=False)
    handshake(server_context(tmp_path / "c"), relaxed, server_name="other.example")


def test_contexts_refuse_missing_files_and_open_keys(authority, tmp_path):
    with pytest.raises(AipagingError):
        server_context(tmp_path / "nowhere")
    authority.write_identity(tmp_path / "c", "controller", "c-1")
    (tmp_path / "c" / "key.pem").chmod(0o644)
    with pytest.raises(AipagingError, match="chmod 600"):
        server_context(tmp_path / "c")
    (tmp_path / "c" / "key.pem").chmod(0o600)
    (tmp_path / "c" / "cert.pem").write_text("garbage")
    with pytest.raises(AipagingError, match="enrol"):
        client_context(tmp_path / "c")


@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("spiffe://other.example/anchor/edge-1",),
        ("spiffe://operator.example.evil.example/anchor/edge-1",),
        ("spiffe://operator.example/root/edge-1",),
        ("spiffe://operator.example/anchor/",),
        ("spiffe://operator.example/anchor/a/b",),
        ("spiffe://operator.example/anchor/a", "spiffe://operator.example/gateway/b"),
    ],
)
def test_certificates_without_exactly_our_identity_are_nobody(uris):
    peercert = {"subjectAltName": [("DNS", "localhost"), *(("URI", uri) for uri in uris)]}
    with pytest.raises(UnverifiedError) as caught:
        identity_of(peercert, trust_domain=DOMAIN)
    assert caught.value.code == "PEER_NOT_ENROLLED"


def test_bytes_that_are_no_certificate_are_nobody(authority):
    root = x509.load_pem_x509_certificate(authority.certificate_pem).public_bytes(Encoding.DER)
    for der in (b"", b"garbage", root):
        with pytest.raises(UnverifiedError):
            identity_of(der, trust_domain=DOMAIN)


@pytest.mark.parametrize("trust_domain", ["", "Upper.example", "a/b", "spiffe://a"])
def test_trust_domains_have_a_grammar(tmp_path, trust_domain):
    with pytest.raises(InvalidInputError):
        CertificateAuthority.open(tmp_path / "ca", trust_domain)
