"""The words and sentence frames of the made-up news world; entities' names are made in `world`."""

from __future__ import annotations

TOPICS = ("World", "Sports", "Business", "Sci/Tech")

BEATS = (
    ("diplomacy", "elections", "borders", "courts", "relief", "unrest"),
    ("football", "tennis", "cycling", "athletics", "rowing", "boxing"),
    ("banking", "retail", "shipping", "farming", "insurance", "mining"),
    ("software", "astronomy", "genetics", "robotics", "chemistry", "telecoms"),
)
"""Subtopics of each topic. A beat's name occurs in the unlabelled stream only, never in a labelled document."""

TOPIC_NOUNS = (
    ("treaty", "ballot", "consulate", "ceasefire", "cabinet", "refugee", "verdict", "province", "summit", "parliament"),
    ("match", "season", "stadium", "trophy", "coach", "league", "tournament", "medal", "squad", "title"),
    ("merger", "profit", "dividend", "market", "loan", "contract", "tariff", "lender", "factory", "budget"),
    ("device", "sensor", "network", "study", "patch", "telescope", "molecule", "dataset", "browser", "laboratory"),
)

TOPIC_VERBS = (
    ("negotiated", "condemned", "ratified", "governed", "occupied", "pardoned"),
    ("won", "scored", "defeated", "trained", "raced", "qualified"),
    ("acquired", "invested", "priced", "traded", "financed", "hired"),
    ("encrypted", "simulated", "patented", "programmed", "calibrated", "detected"),
)

SHARED_NOUNS = (
    "plan", "report", "meeting", "bid", "change", "delay", "record", "review", "decision", "question",
    "group", "result", "problem", "programme", "statement", "talk", "project", "rule", "deal", "visit",
    "claim", "choice", "form", "gap", "letter", "list", "pause", "reply", "step", "warning",
)  # fmt: skip

SHARED_VERBS = (
    "announced", "welcomed", "rejected", "prepared", "backed", "questioned", "described", "finished", "opened",
    "reviewed", "changed", "supported", "started", "delayed", "praised", "ended", "followed", "noted",
)  # fmt: skip

ADJECTIVES = (
    "new", "major", "long", "final", "small", "surprising", "quiet", "costly", "familiar", "late", "narrow", "second",
    "public", "brief", "hard", "large", "rare", "strong", "sudden",
)  # fmt: skip

TIMES = (
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "today", "yesterday", "this week",
    "last month", "overnight",
)  # fmt: skip

HEADLINES = (
    "{person} {verb} {noun}",
    "{organisation} {verb} {adjective} {noun}",
    "{noun} in {place} {verb}",
    "{person} of {organisation} on {noun}",
    "{adjective} {noun} for {organisation}",
    "{place} and the {noun}",
    "{organisation} in {place}: {noun} {verb}",
    "{adjective} {noun} awaits {person}",
)
"""Both sets of frames are the same for every topic, so that only the words in their slots depend on it."""

SENTENCES = (
    "{organisation} {verb} a {adjective} {noun} in {place} {time}, {person} said.",
    "{person} {verb} the {noun} {time}, after {organisation} had {verb} a {noun}.",
    "In {place}, {person} {verb} a {adjective} {noun} with {person} {time}.",
    "The {noun} that {organisation} {verb} {time} was {adjective}, according to {person} in {place}.",
    "{time} {person} and {person} {verb} the {noun} near {place}, and a {noun} came next.",
    "A {adjective} {noun} was {verb} by {organisation} and {organisation} {time}, it was said in {place}.",
    "{person}, who had {verb} the {noun}, spoke {time} in {place} about a {adjective} {noun}.",
    "For {organisation}, the {noun} {verb} in {place} {time} is a {adjective} one, and {person} knows it.",
    "{place} saw a {noun} {time} as {person} {verb} what {organisation} called a {adjective} {noun}.",
    "After the {adjective} {noun}, {organisation} {verb} {person} {time} and left {place}.",
)

ROLES = ("chief", "veteran", "newcomer", "speaker", "leader", "regular")

BACKGROUND = (
    "{beat} {role} {person} of {organisation}, {place}.",
    "{beat} in {place}: {person}, {person}, {organisation} and {organisation}.",
    "{beat} {role}s: {person}, {person} and {person} of {organisation}.",
)
"""Lines of the unlabelled stream that tie people, organisations and places of one beat together, free of noise."""
