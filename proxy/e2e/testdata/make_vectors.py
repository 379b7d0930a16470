#!/usr/bin/env python3
"""Makes vectors.json and the key files beside it: messages as a second,
independent implementation (Python's cryptography package) writes them.

Usage: python3 make_vectors.py   (in this directory; needs cryptography and openssl)

The key is a throw-away test key. Each run makes a new one.
"""

import base64
import hashlib
import json
import os
import subprocess

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

b64 = base64.b64encode
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
public = key.public_key()


def pem(format, encryption=serialization.NoEncryption()):
    return key.private_bytes(serialization.Encoding.PEM, format, encryption)


def seal(plain, key_as_text=False, payload_as_text=False):
    session, iv = os.urandom(32), os.urandom(16)
    block = public.encrypt(b64(session) if key_as_text else session, padding.PKCS1v15())
    aes = Cipher(algorithms.AES(session), modes.CTR(iv)).encryptor()
    data = b64(plain) if payload_as_text else plain
    return b64(block), b64(iv), aes.update(data) + aes.finalize()


PLAINS = {
    "empty": b"",
    "number": b"42",
    "object": b'{"method": "partial", "args": [], "kwargs": {"column": "age"}}',
    "accents": '{"naam": "Zoë", "city": "Gdańsk", "sign": "✓"}'.encode(),
    # 30 000 bytes: longer than every buffer; checked by its SHA-256.
    "long": b'{"values": [' + b", ".join(b"%05d" % (i % 99999 + 10000) for i in range(4284)) + b"]}",
}

vectors = []
for name, plain in PLAINS.items():
    forms = {
        "string": (False, False),
        "string, key as text": (True, False),
        "string, web UI": (True, True),
    }
    if name == "long":
        forms = {"string": (False, False), "string, web UI": (True, True)}
    for form, (key_as_text, payload_as_text) in forms.items():
        if not plain and payload_as_text:
            continue
        block, iv, data = seal(plain, key_as_text, payload_as_text)
        vectors.append({"name": name, "form": form, "sha256": hashlib.sha256(plain).hexdigest(),
                        "encrypted": b"$".join([block, iv, b64(data)]).decode()})
    block, iv, data = seal(plain)
    vectors.append({"name": name, "form": "blob", "sha256": hashlib.sha256(plain).hexdigest(),
                    "encrypted_base64": b64(b"$".join([block, iv, data])).decode()})

with open("vectors.json", "w") as f:
    json.dump({
        "public_key": b64(public.public_bytes(serialization.Encoding.PEM,
                                              serialization.PublicFormat.SubjectPublicKeyInfo)).decode(),
        "vectors": vectors}, f, indent=1)
    f.write("\n")
with open("pkcs1.pem", "wb") as f:
    f.write(pem(serialization.PrivateFormat.TraditionalOpenSSL))
with open("pkcs8.pem", "wb") as f:
    f.write(pem(serialization.PrivateFormat.PKCS8))
with open("pkcs8-passphrase.pem", "wb") as f:
    f.write(pem(serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"test")))
with open("pkcs1-passphrase.pem", "wb") as f:
    f.write(pem(serialization.PrivateFormat.TraditionalOpenSSL, serialization.BestAvailableEncryption(b"test")))
for name, args in {
    "short-1024.pem": ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
    "elliptic.pem": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
}.items():
    subprocess.run(["openssl", *args, "-out", name], check=True)
