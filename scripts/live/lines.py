"""An event in one plain line, for terminals and for logs of services."""

from collections.abc import Mapping
from typing import Any

from scripts.reporting.figures import size


def run_line(event: Mapping[str, Any]) -> str:
    """Of a run's metrics; empty for what needs none."""
    match event["event"]:
        case "institution":
            return f"{event['name']}: {event['state']}"
        case "start":
            return "all institutions are here"
        case "resume":
            return f"all institutions are here; going on after round {event['round']}"
        case "refusal":
            asked = f"{event['institution']} refused {event['asked']}"
            return f"round {event['round']}: {asked}: {event['code'] or 'answered something else'}"
        case "abort":
            why = event["reason"]
            return f"round {event['round']}: an attempt at {event['sum']} ended: {why}"
        case "evaluation_missing":
            return f"round {event['round']}: no evaluation: {event['reason']}"
        case "round":
            updates, seconds = len(event["institutions"]), event["seconds"]
            return f"round {event['round']}: {updates} updates, {seconds:.1f} s"
        case "evaluation":
            return f"round {event['round']}: shared model's F1 {event['f1']:.4f}"
    return ""


def site_line(event: Mapping[str, Any]) -> str:
    """Of an institution's own figures; empty for what needs none."""
    match event["event"]:
        case "start":
            documents = f"{event['train_documents']} documents to train on"
            return f"the worker is ready: {documents}, {event['held_out_documents']} held out"
        case "train":
            return f"round {event['round']}: own loss per word {event['loss']:.4f}"
        case "evaluate":
            return f"round {event['round']}: shared model's F1 on own documents {event['f1']:.4f}"
        case "reply":
            spent = f", epsilon {event['epsilon']:.4f} spent" if "epsilon" in event else ""
            what, up = event["asked"], size(event["bytes_up"])
            return f"round {event['round']}: {what}: {up} out, {event['seconds']:.1f} s{spent}"
    return ""
