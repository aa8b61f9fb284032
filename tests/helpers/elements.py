"""Reads the elements of an HTML page."""

from html.parser import HTMLParser


class Elements(HTMLParser):
    """The elements of a page in order: their tags, attributes, and the text up to the next tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.texts.append("")
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        """Leave what follows to no element."""
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]

    def said(self, tag: str, **attributes: str | None) -> list[str]:
        """Return the texts of the elements of a tag with these attributes; None asks for one
        that is missing.
        """
        pairs = zip(self.found, self.texts, strict=True)
        return [
            text
            for (name, own), text in pairs
            if name == tag and attributes.items() <= (dict.fromkeys(attributes) | own).items()
        ]
