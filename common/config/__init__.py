"""Study and site: YAML into frozen, validated dataclasses."""
