"""Reading pages that commands write."""

from html.parser import HTMLParser


class _Tags(HTMLParser):
    """Counts tags and holds that they close in order."""

    VOID = frozenset({"meta", "line", "circle", "rect", "br", "polyline", "polygon"})

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.links = [], {}, []

    def handle_starttag(self, tag, attributes):
        self.seen[tag] = self.seen.get(tag, 0) + 1
        self.links += [v for k, v in attributes if k in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen[tag] = self.seen.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(text):
    tags = _Tags()
    tags.feed(text)
    assert not tags.open
    return tags
