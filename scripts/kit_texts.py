"""What `fedner provision` writes for people: a kit's site file and instructions, and its own."""

from collections.abc import Sequence
from typing import Final

from common.config.deployment import Deployment
from common.io.certificate_files import AUTHORITY

DEMO: Final = (
    "DEMO FEDERATION. One machine made every private key, and nobody compared anything: whoever "
    "had that machine is every institution and the server. Never use it with real records."
)
DEMO_ONE_USER: Final = (
    "DEMO kits accept one OS user for worker and relay (`accept_one_user: true`): the relay could "
    "read all that the worker can."
)
PASSPHRASE: Final = "passphrase"
NEW_PASSPHRASE: Final = f"(umask 077; openssl rand -hex 32 > {PASSPHRASE})"
"""Typed once, in the folder of keys that are to be made; nobody has to know the line."""
UNATTENDED: Final = "docs/provisioning.md, Unattended start"


def site_text(deployment: Deployment, name: str, demo: bool) -> str:
    """A site file to adapt.

    Args:
        name: of the institution.
        demo: its keys are made by `fedner provision`, without a passphrase.
    """
    heading = f"# {DEMO}\n" if demo else ""
    return f"""{heading}# {name}'s own file: adapt it, keep it. It never leaves the institution.
institution: {name}
study: study.yaml               # compare its hash with the others: fedner config check study.yaml
coordinator: "{deployment.server.public}"
state: state                    # socket, logs, Flower's state; made with mode 0700
identity: identity              # made by `fedner enrol request`
{_passphrase_line(demo)}
roster: roster.yaml             # sent once everybody is enrolled; then `fedner roster pin`
authority: {AUTHORITY}               # TLS with this authority alone: compare `fedner enrol show {AUTHORITY}`
node: node                      # made by `fedner enrol request`; with `authority`, or neither
data:
  all: {{format: brat, path: notes, patients: patients.tsv}}   # yours: see docs and configs/
  split: {{test: 0.2, key: choose-your-own-and-keep-it}}
policy:
  accept_privacy_none: false
  accept_secure_aggregation_none: false
  {_one_user_line(demo)}
  # budget, min_noise_multiplier, hours, sign_offs, code_sha256 and the rest: docs/policy.md
"""  # noqa: E501


def site_readme(deployment: Deployment, name: str, prints: Sequence[str], demo: bool) -> str:
    """An institution's instructions.

    Args:
        prints: fingerprints of the certificates in its kit.
    """
    heading = f"{DEMO}\n\n" if demo else ""
    shown = "\n   ".join(prints)
    return f"""{heading}{name} in the federation {deployment.federation}
Nothing in this folder is secret. {_whose_keys(demo)}

1. Compare the authority's fingerprint with the coordinator, by telephone:
   {shown}
   That of the file here:
   fedner enrol show {AUTHORITY}
2. Read study.yaml: it says what is trained and what is protected. Adapt site.yaml.
{_enrolment(deployment.federation, demo)}
5. Compare the hash of roster.yaml with the OTHER INSTITUTIONS, not through the coordinator, and
   pin it; the second command prints the line that belongs into site.yaml:
   fedner roster verify roster.yaml
   fedner roster pin roster.yaml site.yaml
{_start(name, demo)}
   It connects to {deployment.server.public} and opens no port to the outside.

To leave: stop `fedner client`, and ask the coordinator for
   fedner enrol leave {name} --federation FOLDER
If a key may be known to others: tell the other institutions, and the coordinator, who runs
   fedner enrol revoke {name} --federation FOLDER
"""


def coordinators_text(deployment: Deployment, *, demo: bool, sealed: bool) -> str:
    """The coordinator's instructions.

    Args:
        sealed: the keys have a passphrase.
    """
    heading = f"{DEMO}\n\n" if demo else ""
    server, days = deployment.server, deployment.validity.server_days
    words = f" --passphrase-file {PASSPHRASE}" if sealed else ""
    return f"""{heading}The federation {deployment.federation}, at the coordinator

authority/    the certificate authority. Keep its key off the server: only --renew, --rotate need it
server/       keys and certificates of the server, for {", ".join(server.hosts)}
coordinator/  the coordinator's identity
sites/NAME/   send this folder to NAME
register.json who is enrolled; nodes/ holds their node keys

Open port {server.port} to the institutions. Nothing else of this machine need be reachable, and
nobody else should have an account on it: Flower's own port is on loopback, without authentication.
{_coordinators_passphrase(sealed)}
fedner enrol approve REQUEST.json --federation FOLDER    # after comparing by telephone
fedner enrol list --federation FOLDER
fedner doctor --federation FOLDER{words}
fedner server FOLDER/study.yaml --federation FOLDER{words}

Every {days} days at the latest:
fedner provision FEDERATION.yaml --out FOLDER --renew{words or " --no-passphrase"}
"""


def _passphrase_line(demo: bool) -> str:
    if demo:
        return f"# passphrase_file: {PASSPHRASE}   # mode 0600, for an identity with a passphrase"
    return f"passphrase_file: {PASSPHRASE}     # mode 0600, made before the keys: README.txt, 3"


def _one_user_line(demo: bool) -> str:
    if demo:
        return "accept_one_user: true         # DEMO: the relay could read all that the worker can"
    return "accept_one_user: false        # two users: README.txt, 6"


def _start(name: str, demo: bool) -> str:
    if demo:
        return f"""6. {DEMO_ONE_USER}
   Look, and once all is in order, start:
   fedner doctor site.yaml
   fedner client site.yaml"""
    return f"""6. Worker and relay run as two users of this machine, so that no code of the
   coordinator's can read the records. Making them, folders and units: docs/deployment.md. Put
   into site.yaml, outside of `policy`, in place of its own `state`:
   relay_group: fedner-door
   socket: /run/fedner/{name}/socket
   state: /var/lib/fedner-worker/{name}
   Write the relay's file; the command says what is to be moved beside it and to be taken out here:
   fedner client site.yaml --write-relay relay.yaml
   Look, and once all is in order, start. As the worker's user:
   fedner doctor site.yaml
   fedner client site.yaml --side worker
   and as the relay's, beside it:
   fedner doctor relay.yaml --side relay
   fedner client relay.yaml --side relay
   To try it out without records of patients, as one user: `accept_one_user: true` in site.yaml, no
   `relay_group`, and in place of all this
   fedner client site.yaml"""


def _whose_keys(demo: bool) -> str:
    if demo:
        return "But for the private keys, which were not made by you."
    return "Your private keys are made by you, and stay with you."


def _enrolment(federation: str, demo: bool) -> str:
    if demo:
        return f"""3. The keys are here already, and {federation} has them in its register.
4. There is no request to send."""
    return f"""3. Make a passphrase that nobody types, then your keys and your request, here:
   {NEW_PASSPHRASE}
   fedner enrol request site.yaml --federation {federation} --out request.json
   site.yaml names the file, since the worker starts unattended. Other sources, and where the file
   belongs: {UNATTENDED}.
4. Send request.json to the coordinator, and read your fingerprints to them by telephone. Once
   everybody is enrolled, you get roster.yaml back: lay it here."""


def _coordinators_passphrase(sealed: bool) -> str:
    if not sealed:
        return ""
    return f"""
`{PASSPHRASE}` is a file of mode 0600 with the passphrase of the keys. Other sources for the server,
which starts unattended: {UNATTENDED}.
"""
