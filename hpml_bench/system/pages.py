"""Headers of the pages of a parquet file: how large each page is once it is decompressed.

A header is a structure of Thrift's compact protocol (`PageHeader` in parquet-format's
parquet.thrift, and thrift-compact-protocol.md), which pyarrow doesn't show.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

USUAL_HEADER = 1_000  # bytes of a page's header
MOST_HEADER = 100_000  # where it holds the least and the greatest of long values
DELTA_BYTE_ARRAY = 7  # of the enumeration `Encoding`
# fields of `PageHeader`: their numbers
TYPE, DECOMPRESSED_SIZE, COMPRESSED_SIZE = 1, 2, 3
ENCODINGS = {0: (5, 2), 3: (8, 4)}
"""Type of a page of data -> the field of its own header, and in that the field of its encoding."""
# types of a field in the compact protocol
STOP, TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, SET, STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 12
INTEGERS = {4, 5, 6}  # of 16, 32 and 64 bits
INTEGER_32 = 5  # a reader passes over a field that has another type than parquet.thrift names
MOST_NUMBER = 2**15 - 1  # of a field
MOST_SIZE = 2**31 - 1
DEEPEST = 10  # levels of structures and lists in each other


class Page(NamedTuple):
    """A page of a column."""

    decompressed_bytes: int
    compressed_bytes: int
    encoding: int | None  # of its values; None for a dictionary or an index


def pages_of(file: BinaryIO, column: Any) -> Iterator[Page]:
    """Yield the pages of a column in a group of rows, a `pyarrow.parquet.ColumnChunkMetaData`.

    Raises ValueError where a header can't be read, or says less than nothing.
    """
    if column.num_values <= 0:
        return  # no page is read, and the places of its pages may be missing
    position = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < position:
        position = column.dictionary_page_offset
    end = position + column.total_compressed_size
    while position < end:
        page, length = _page_at(file, position)
        yield page
        position += length + page.compressed_bytes


def _page_at(file: BinaryIO, position: int) -> tuple[Page, int]:
    """Return the page whose header is at a position of a file, and the header's length in bytes."""
    for most in (USUAL_HEADER, MOST_HEADER):
        file.seek(position)
        reader = _Reader(file.read(most))
        try:
            return _page(reader.struct()), reader.position
        except IndexError:  # it is longer
            continue
    raise ValueError("it can't be decoded: a page has no header")


def _page(fields: dict[int, Any]) -> Page:
    decompressed = _size(fields, DECOMPRESSED_SIZE)
    compressed = _size(fields, COMPRESSED_SIZE)
    encoding = None
    if place := ENCODINGS.get(fields.get(TYPE, -1)):
        header_field, encoding_field = place
        header = fields.get(header_field)
        encoding = header.get(encoding_field) if isinstance(header, dict) else None
    return Page(decompressed, compressed, encoding)


def _size(fields: dict[int, Any], number: int) -> int:
    size = fields.get(number)
    # a reader of 32 bits would take a larger number for another one
    if isinstance(size, int) and 0 <= size <= MOST_SIZE:
        return size
    raise ValueError("it can't be decoded: a page has no size, or one out of range")


class _Reader:
    """Reads values of the compact protocol; IndexError behind the end, ValueError for what none
    is.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.position = 0

    def byte(self) -> int:
        value = self.content[self.position]
        self.position += 1
        return value

    def unsigned(self) -> int:
        """Return an integer of seven bits a byte, the lowest first."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("it can't be decoded: a page's header has a number of over 64 bits")

    def integer(self) -> int:
        """Return a signed integer, whose lowest bit is its sign ("zigzag")."""
        value = self.unsigned()
        return (value >> 1) ^ -(value & 1)

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Return the fields of a structure by number: integers of 32 bits, and structures of them.

        Raises ValueError for a field that comes twice, of which a reader would keep either.
        """
        fields: dict[int, Any] = {}
        number = 0
        while (head := self.byte()) != STOP:
            kind = head & 0x0F
            distance = head >> 4  # from the field before, or 0 where that is far
            number = number + distance if distance else self.integer()
            if not 0 <= number <= MOST_NUMBER:
                raise ValueError("it can't be decoded: a page's header has a field out of range")
            if number in fields:
                raise ValueError("it can't be decoded: a page's header has a field twice")
            # a truth value is its type alone
            fields[number] = None if kind in {TRUE, FALSE} else self.value(kind, depth)
        return fields

    def value(self, kind: int, depth: int) -> Any:
        """Return an integer of 32 bits or a structure; None for other values, which are passed
        over.
        """
        if depth > DEEPEST:
            raise ValueError("it can't be decoded: a page's header is nested too deep")
        if kind in INTEGERS:
            value = self.integer()
            return value if kind == INTEGER_32 else None
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind in {TRUE, FALSE, BYTE}:
            self.byte()
        elif kind == DOUBLE:
            self.position += 8
        elif kind == BINARY:
            length = self.unsigned()
            self.position += length
        elif kind in {LIST, SET}:
            self.list(depth)
        else:  # `PageHeader` has no maps
            raise ValueError(f"it can't be decoded: a page's header has a value of type {kind}")
        return None

    def list(self, depth: int) -> None:
        """Pass over a list: the upper half of its first byte is its length, or 15 where that
        follows.
        """
        head = self.byte()
        length = head >> 4
        if length == 0x0F:
            length = self.unsigned()
        if length > MOST_HEADER:
            raise ValueError("it can't be decoded: a page's header has a list that is too long")
        for _ in range(length):
            self.value(head & 0x0F, depth + 1)
