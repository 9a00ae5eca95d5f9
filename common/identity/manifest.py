"""The manifest of an exported model: hashes of all its files, signed or marked as unsigned.

Guarantees:
    - The signature covers everything that the manifest says: version, study, every file's name,
      hash and size, and who signed. It is made under a label of its own: no other signature of
      that key is one.
    - It has one form: other bytes that say the same are no manifest.
    - Reading one does not verify it. Whether it counts is `require_signer`'s to say, by a key that
      the reader has from elsewhere: never by the key that the manifest itself names.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from common.config.data import STRICT
from common.config.study import NAME_PATTERN, SHA256_PATTERN
from common.errors import EncoderError, IdentityError
from common.identity.identity import Identity
from common.identity.signing import verify

FORMAT: Final = "fedner exported model v1"
MAX_BYTES: Final = 1 << 18

_LABEL: Final = FORMAT.encode()
_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FileMark:
    """What a file must be: SHA-256 in hexadecimal, and size in bytes."""

    sha256: str = Field(pattern=SHA256_PATTERN)
    size: int = Field(ge=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Signed:
    """Whose signature it claims to bear; key and signature (Ed25519) in hexadecimal."""

    name: str = Field(pattern=NAME_PATTERN)
    public_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    signature: str = Field(pattern=r"^([0-9a-f]{128})?$")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Manifest:
    """As it was read or made: not yet verified.

    Attributes:
        fedner: version that exported.
        study, study_sha256: name and canonical hash.
        files: all of the folder but the manifest, by name.
        signed: absent where nobody signed.
    """

    fedner: str = Field(pattern=r"^[\x20-\x7e]{1,40}$")
    study: str = Field(pattern=NAME_PATTERN)
    study_sha256: str = Field(pattern=SHA256_PATTERN)
    files: dict[_FileName, FileMark]
    signed: Signed | None = None
    format: Literal["fedner exported model v1"] = FORMAT

    def signed_by(self, identity: Identity) -> "Manifest":
        """The same, signed."""
        signer = identity.signer
        claim = Signed(name=identity.name, public_key=signer.public_key, signature="")
        return replace(
            self, signed=replace(claim, signature=signer.sign(_LABEL, self._message(claim)))
        )

    def require_signer(self, public_key: str) -> None:
        """That key must have signed all that the manifest says.

        Raises:
            IdentityError: nobody signed, another did, or what was signed was something else.
        """
        if self.signed is None:
            raise IdentityError(
                "nobody signed it: anyone can have made this folder",
                remedy="get one that its maker signed (`fedner export --identity`); --unsigned "
                "compares the files with an unsigned manifest",
            )
        if self.signed.public_key != public_key:
            raise IdentityError(
                f"is signed with the key {self.signed.public_key}, expected {public_key}",
                remedy="it is not from whom you expected: find out who made it",
            )
        if not verify(public_key, _LABEL, self._message(self.signed), self.signed.signature):
            raise IdentityError(
                "the signature is not over what the manifest says now",
                remedy="it was changed after it was signed: take the folder again from its maker",
            )

    def _message(self, claim: Signed) -> bytes:
        """Canonical JSON (sorted keys, no blanks, ASCII) of all but the signature."""
        content = asdict(replace(self, signed=replace(claim, signature="")))
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")

    def to_bytes(self) -> bytes:
        """Its file, the files in order of their names."""
        content = {**asdict(self), "files": {n: asdict(m) for n, m in sorted(self.files.items())}}
        return json.dumps(content, indent=2).encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Parse its file.

        Raises:
            EncoderError: not of this form to the byte, or more than `MAX_BYTES`.
        """
        if len(data) > MAX_BYTES:
            raise _no_manifest(f"has more than {MAX_BYTES} bytes")
        try:
            manifest = _ADAPTER.validate_json(data)
        except ValidationError as error:
            first: Mapping[str, Any] = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise _no_manifest(f"{where}: {first['msg']}") from None
        if data != manifest.to_bytes():
            raise _no_manifest("blanks, order or double keys are not as `fedner export` writes it")
        return manifest


def _no_manifest(said: str) -> EncoderError:
    return EncoderError(
        f"is no manifest of an exported model: {said}",
        remedy="take the folder again from where `fedner export` wrote it",
    )


_ADAPTER: Final = TypeAdapter(Manifest)
