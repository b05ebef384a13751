"""What a browser would find in a page."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Collects what the page would fetch, its pictures, its text, and whether its elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.links, self.pictures, self.text, self.stack = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [attributes[key] for key in ("src", "href") if attributes.get(key)]
        if tag == "img":
            self.pictures.append(attributes)
        if tag not in ("img", "meta", "input"):
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
