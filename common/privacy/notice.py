"""What every run says, loudly and in the same words, about the protection of what leaves."""

from common.config.study import Study

WITHOUT_PRIVACY = (
    "PRIVACY: NONE. Updates leave each institution without clipping or noise; the model may "
    "reveal training records. Not for real patients' data outside its institution."
)
WITHOUT_SECURE_AGGREGATION = (
    "SECURE AGGREGATION: NONE. The coordinator sees each institution's own update and counts."
)


def notices(study: Study) -> tuple[str, ...]:
    """One sentence for each protection that the study does without."""
    said = []
    if study.privacy == "none":
        said.append(WITHOUT_PRIVACY)
    if study.secure_aggregation == "none":
        said.append(WITHOUT_SECURE_AGGREGATION)
    return tuple(said)
