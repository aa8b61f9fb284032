"""Units and currencies beside a number, compared as whole tokens."""

import re
import unicodedata

from hpml_bench.data.keyboard import LETTER

CURRENCY_SIGN = r"(?:(?:US|CA|AU|HK|NZ|NT|SG|MX|[ACRSZ])?\$|[\u00a2-\u00a5\u20a0-\u20bf])"
CURRENCY_NAME = (
    r"(?:USD|EUR|GBP|JPY|CNY|RMB|CHF|CAD|AUD|NZD|HKD|SGD|INR|SEK|NOK|DKK|ISK|PLN|CZK|HUF|RON|BGN|"
    r"TRY|RUB|UAH|ILS|ZAR|BRL|MXN|ARS|CLP|COP|PEN|KRW|TWD|THB|IDR|MYR|PHP|VND|PKR|BDT|LKR|NGN|KES|"
    r"EGP|AED|SAR|BTC|Rs|Fr|kr|z\u0142|K\u010d)"
)
BEFORE = rf"(?:(?<![{LETTER}]){CURRENCY_SIGN}|(?<![{LETTER}]){CURRENCY_NAME}\.?)"
BEHIND = re.compile(
    rf" ?({CURRENCY_SIGN}|(?:{CURRENCY_NAME}|[Dd]ollars?|[Ee]uros?)\.?(?![{LETTER}\d]))"
    rf"(?![{LETTER}\d])"
)
SAME_CURRENCY = {
    "EUR": "€",
    "euro": "€",
    "euros": "€",
    "GBP": "£",
    "INR": "₹",
    "USD": "US$",
    "dollar": "$",
    "dollars": "$",
}
PREFIXED = r"(?:[YZEPTGMkhdcm\u00b5\u03bcnp]|da|[KMGT]i)?"
BASE = (
    r"(?:Hz|Pa|mol|cd|ohm|Ohm|\u03a9|\u2126|Wb|lm|lx|Bq|Gy|Sv|bits?|bytes?|eV|cal|Wh|Ah|bar|"
    r"[mgsNJWVlLt])"
)
PREFIXED_ONLY = r"(?:[YZEPTGMkhdcm\u00b5\u03bcnp]|[KMGT]i)(?:[ACFHTBb]|bps|bp)"
CUSTOMARY = (
    r"(?:min|sec|hrs?|h|days?|d|weeks?|wk|months?|mo|years?|yrs?|yr|hours?|minutes?|seconds?|"
    r"in|ft|yd|mi|nmi|feet|foot|inch(?:es)?|miles?|lbs?|oz|pounds?|pt|px|em|qt|gal|sq|ha|ac|mph|kph|"
    r"rpm|fps|bps|cc|atm|psi|mmHg|dB|ppm|ppb|rad|sr|[ap]\.?m\.?|[AP]\.?M\.?|"
    r"\u00b0[CFK]?|\u2103|\u2109|[%\u2030\u2032\u2033'\"])"
)
ATOM = rf"(?:{PREFIXED_ONLY}|{CUSTOMARY}|{PREFIXED}{BASE})(?![{LETTER}])(?:-?[23]|[\u00b2\u00b3])?"
KNOWN = rf"(?:{ATOM}(?: ?[/\u00b7*] ?{ATOM})*|/{ATOM}|/[a-z]{{3,}})(?![{LETTER}\d])"
UNIT = re.compile(KNOWN)
FACTORS = {
    "point": {"thousand": 10**3, "million": 10**6, "billion": 10**9},
    "comma": {"thousand": 10**3, "million": 10**6},
}
"""Words that multiply; a billion is 10^12 in most languages with a decimal comma."""
FACTOR = re.compile(r" ?(thousand|million|billion)s?(?!\w)", re.IGNORECASE)
MULTIPLIERS = (
    r"bn|tn|mn|mln|mld|mrd|mio|mill\.|thsd|tsd|tys|tis|hundreds?|dozens?|scores?|lakhs?|lacs?|crores?",
    r"(?:b|tr|quadr|quint)illions?|hundert|tausend|millions?|millionen|milliarden?|billionen",
    r"trillionen",
    r"mil|mille|milliers?|milliards?|mila|milione|milioni|miliardi?",
    r"(?:m|b|tr)ill\u00f3n|(?:m|b|tr)illones|(?:m|b|tr)ilh\u00e3o|(?:m|b|tr)ilh\u00f5es|cientos|centos",
    r"honderd|duizend|miljoen|miljard|biljoen|triljoen|hundra|hundre|tusen|tuhatta?|milj",
    r"miljon(?:er|ia|aa)?|miljard(?:er|ia)?|biljon(?:er|ia|aa)?|bilion(?:y|\u00f3w|\u016f)?",
    r"million(?:er)?|milliard(?:er)?|tysi(?:\u0105c|\u0105ce|\u0119cy)|milion(?:y|\u00f3w|\u016f)?",
    r"miliard(?:y|\u00f3w|\u016f)?|tis\u00edce?|ezer|milli\u00f3|milli\u00e1rd|y\u00fcz|bin|milyon|milyar",
    r"bilyon|trilyon|хиляд[аи]|милион[аи]?|милиард[аи]?|трлн|триллион(?:а|ов)?",
    r"ribu|juta|miliar|ngh\u00ecn|tri\u1ec7u|t\u1ef7",
    r"тыс(?:яча|ячи|яч)?|млн|млрд|миллион(?:а|ов)?|миллиард(?:а|ов)?|тис(?:яча|ячі|яч)?",
    r"мільйон(?:и|ів)?|мільярд(?:и|ів)?|χιλιάδες|εκατομμύρια?|δισεκατομμύρια?",
)
MULTIPLIER = re.compile(
    rf" ?(?:(?:(?-i:[kKMBGT])|{'|'.join(MULTIPLIERS)})(?!\w)"
    r"|[\u4e07\u842c\u5104\u4ebf\u5146\u5343\u767e\u5341\ub9cc\uc5b5\ucc9c\ubc31]"
    r"|\u0e1e\u0e31\u0e19|\u0e2b\u0e21\u0e37\u0e48\u0e19|\u0e41\u0e2a\u0e19"
    r"|\u0e25\u0e49\u0e32\u0e19"  # Thai, without spaces between words
    # hundred, thousand, a hundred thousand, ten million in Hindi; these vowels are no letters
    r"|\u0938\u094c|\u0939\u091c\u093c\u093e\u0930|\u0939\u091c\u093e\u0930|\u0932\u093e\u0916"
    r"|\u0915\u0930\u094b\u0921\u093c"
    # hundred, thousand, million, billion in Arabic, with the plural of three to ten
    r"|\u0645\u0627\u0626\u0629|\u0623\u0644\u0641|\u0622\u0644\u0627\u0641|\u0645\u0644\u064a\u0648\u0646|\u0645\u0644\u0627\u064a\u064a\u0646"
    r"|\u0645\u0644\u064a\u0627\u0631)",
    re.IGNORECASE,
)
"""Words and letters that multiply, whose factor hangs on the language or isn't read."""
PER_CENT = re.compile(
    r"per ?cento?|prozent|pour ?cent|por ?(?:ciento|cento)|procent(?:[oyaui\u016f]|\u00f3w)?(?!\w)"
    r"|procent|pros(?:ent|entti|enttia)(?!\w)|persen(?!\w)|sz\u00e1zal\u00e9k"
    r"|процент(?:а|ов)?(?!\w)|відсот(?:ок|ки|ків)(?!\w)|\bpct\b"
    # in Japanese, Korean, Hindi and Arabic
    r"|\u30d1\u30fc\u30bb\u30f3\u30c8|\ud37c\uc13c\ud2b8|\u092a\u094d\u0930\u0924\u093f\u0936\u0924"
    r"|(?:\u0628\u0627\u0644|\u0641\u064a \u0627\u0644)"
    r"(?:\u0645\u0626\u0629|\u0645\u0627\u0626\u0629)",
    re.IGNORECASE,
)
"""Per cent in words; percentage points keep an ending behind its sign, and equal no per cent."""
PER_MILLE = re.compile(
    r"per ?mill?e?(?!\w)|pro ?mill?[eiu]?(?!\w)|pour ?mille(?!\w)|por ?mil(?!\w)|промилле(?!\w)",
    re.IGNORECASE,
)
HALF_OF_DAY = re.compile(r"\b([apAP])\.? ?[mM]\b\.?")
NEVER_IGNORED = re.compile(r"[%\u2030]|(?:am|pm|ppm|ppb|BCE?|AD|CE)(?!\w)")
"""Units without which a number is another one: 5 % is not 5."""
CONTINUED = re.compile(
    rf" ?[/\u00b7*^]| ?-\w| (?:per|an?|each|every|p\.? ?a|pro|par|je)\b|"
    rf" (?:(?!in\b|a\b){ATOM}|[CFKNESW])(?!\w)"
)
"""What makes a longer unit of a shorter one: km/h, km per hour."""
ENDED = re.compile(r"[)\]}.,;:!?*\"'`\u201d\u2019]*(?:[ =\u2014]|\Z)|\u2014")
CLOSING = " \t\n.,;:!?)]}*\"'\u2019\u201d"
MOST_WORDS = 3  # of a unit: square metres, miles per hour
WORD = re.compile(rf"[{LETTER}]{{3,}}\.?|[^\W\d{LETTER}]+|per|an?")
NO_UNITS = frozenset(
    [
        "and",
        "more",
        "less",
        "fewer",
        "plus",
        "minus",
        "times",
        "least",
        "most",
        "out",
        "off",
        "the",
        "than",
        "but",
        "not",
        "repeating",
        "recurring",
        "squared",
        "cubed",
        "and/or",
        "oder",
        "und",
    ]
)


def currency(written: str) -> str:
    """Return a currency in the form in which all that are the same are written."""
    name = written.strip().rstrip(".")
    return SAME_CURRENCY.get(name) or SAME_CURRENCY.get(name.lower(), name)


def unit(text: str) -> str:
    """Return a unit's letters in their plain form, per cent as its sign."""
    primes = text.replace("\u2033", '"').replace("\u2032", "'")
    plain = " ".join(unicodedata.normalize("NFKC", primes).split())
    if len(plain) > 1:
        plain = plain.rstrip(CLOSING.replace('"', "").replace("'", ""))
    plain = HALF_OF_DAY.sub(lambda half: f"{half[1].lower()}m", plain)
    return PER_MILLE.sub("\u2030", PER_CENT.sub("%", plain))


def is_unit(text: str) -> bool:
    """Return whether a text behind a number is no more than a unit."""
    text = text.strip()
    if not text or UNIT.fullmatch(text) or unit(text) == "%":
        return True
    words = text.split()
    if len(words) > MOST_WORDS or not NO_UNITS.isdisjoint(words):
        return False
    return all(WORD.fullmatch(word) or UNIT.fullmatch(word) for word in words)


def has_unit(text: str, wanted: str) -> bool:
    """Return whether the text behind a number begins with a unit that ends there."""
    text = unit(text)
    tail = text.removeprefix(wanted)
    if tail == text and wanted:
        return False
    return ENDED.match(tail) is not None and not CONTINUED.match(tail)
