"""Makes homemade-*: a chain that looks like AMD's in everything but its keys (Python's cryptography 48)."""

import warnings
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

HERE = Path(__file__).parent
PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)


def like(genuine, key, issuer, authority=True):
    cert = x509.load_der_x509_certificate(genuine.read_bytes())
    builder = (
        x509.CertificateBuilder()
        .subject_name(cert.subject)
        .issuer_name(cert.issuer)
        .public_key(key.public_key())
        .serial_number(max(cert.serial_number, 1))
        .not_valid_before(cert.not_valid_before_utc)
        .not_valid_after(cert.not_valid_after_utc)
    )
    for extension in cert.extensions:
        value = extension.value
        if isinstance(value, (x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier)):
            continue
        if isinstance(value, x509.BasicConstraints) and not authority:
            value = x509.BasicConstraints(False, None)
        builder = builder.add_extension(value, extension.critical)
    return builder.sign(issuer, hashes.SHA384(), rsa_padding=PSS).public_bytes(Encoding.DER)


def main():
    # The chips' certificates are numbered zero, of which the library warns.
    warnings.simplefilter("ignore")
    ark, ask = (rsa.generate_private_key(65537, 4096) for _ in range(2))
    vcek = ec.generate_private_key(ec.SECP384R1())
    genuine_ark = HERE / "../../src/attest/amd/ark-milan.der"
    files = {
        "ark.der": like(genuine_ark, ark, ark),
        "ask.der": like(HERE / "ask-milan.der", ask, ark),
        "ask-no-authority.der": like(HERE / "ask-milan.der", ask, ark, authority=False),
        "vcek.der": like(HERE / "vcek-milan.der", vcek, ask),
        "vcek.p8": vcek.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    }
    for name, contents in files.items():
        (HERE / f"homemade-{name}").write_bytes(contents)


main()
