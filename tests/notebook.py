"""Signatures as people write them in a notebook: classes, with models and enums of their own."""

from __future__ import annotations

import base64
import datetime
import decimal
import enum
import uuid
from typing import Annotated, Any, Generic, Literal, TypeVar

import dspy
from pydantic import (
    AfterValidator,
    AnyUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    PlainSerializer,
    TypeAdapter,
    WrapValidator,
    computed_field,
    field_validator,
    model_validator,
)

Thing = TypeVar("Thing")


class Severity(enum.Enum):
    """How bad it is."""

    LOW = "low"
    HIGH = "high"


class Stars(enum.IntEnum):
    ONE = 1
    TWO = 2


class Address(BaseModel):
    """Where somebody lives."""

    street: str = Field(examples=["Elm Street", "Oak Street"])
    zip: str | None = Field(default=None, description="postal code")
    floor: int = Field(default=0, ge=0, lt=200)


class Person(BaseModel):
    """A person.

    As the text has them.
    """

    name: str = Field(description="the full name", alias="fullName", max_length=80)
    age: int | None = None
    weight: float = Field(default=1, ge=0, le=2.5)
    home: Address = Field(description="the home")
    severity: Severity = Severity.LOW
    tags: list[str] = []
    links: list[str] = Field(default_factory=list)
    kind: Literal["a"]
    kinds: Literal["a", "b"] = "b"
    nick: str = Field(title="The nickname", default="", description="or nothing")


class Household(BaseModel):
    """Two of one class, of which one is described where it stands."""

    summer: Address = Field(description="in summer")
    winter: Address
    before: list[Address] = []


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    people: dict[str, Person]


class Event(BaseModel):
    day: datetime.date
    start: datetime.datetime
    at: datetime.time | None = None
    length: datetime.timedelta = datetime.timedelta(hours=1)
    id: uuid.UUID
    page: AnyUrl
    site: HttpUrl | None = Field(default=None, description="its site")
    other: HttpUrl = Field(default=HttpUrl("https://example.org/other"), description="another", title="Other")
    price: decimal.Decimal = decimal.Decimal("1.50")
    code: str = Field(pattern="^[A-Z]+$")
    rest: Any = None
    anything: dict[str, Any] = {}
    bare: list = []  # type: ignore[type-arg]
    pairs: list[Annotated[int, Field(gt=0, le=9)]] = []
    kind: Literal["event"] = "event"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Owner(BaseModel):
    pet: Cat | Dog = Field(discriminator="kind", description="the one")
    size: float | int
    where: Address | str | None = None
    place: tuple[float, float] = (0, 0)
    names: set[str] = set()


class Box(BaseModel, Generic[Thing]):
    """A box."""

    thing: Thing


class Parcel(Household):
    inside: Box[int]
    also: Box[str] | None = None


class Outer(BaseModel):
    class Inner(BaseModel):
        number: int

    inner: Inner
    many: dict[str, list[Inner]]


class Flag(str, enum.Enum):  # noqa: UP042  as people have it
    ON = "on"
    OFF = "off"


class Node(BaseModel):
    """A part of a document."""

    title: str
    children: list[Node] = []
    next: Node | None = Field(default=None, description="the one after it")
    notes: dict[str, Note] = Field(default_factory=dict, examples=[{"a": {"text": "b"}}])


class Note(BaseModel):
    text: str
    about: Node | Severity | None = None
    where: Address = Field(description="of the note")


class Leaf(BaseModel):
    """It has no others."""

    kind: Literal["leaf"]
    value: int


class Branch(BaseModel):
    kind: Literal["branch"]
    left: Tree
    right: Tree


Tree = Annotated[Leaf | Branch, Field(discriminator="kind")]
Node.model_rebuild()
Branch.model_rebuild()


class Line(BaseModel):
    """A line of an order."""

    model_config = ConfigDict(str_strip_whitespace=True)

    sku: str = Field(description="as on the shelf")
    count: Annotated[int, Field(gt=0), BeforeValidator(int)] = 1

    @field_validator("sku")
    @classmethod
    def _of_the_shelf(cls, sku: str) -> str:
        return sku.upper()


class Order(BaseModel):
    lines: Annotated[list[Line], AfterValidator(sorted)]
    code: Annotated[str, WrapValidator(lambda value, read: read(value))] | None = None
    due: Annotated[datetime.date, PlainSerializer(str)]
    marks: tuple[int, ...] = Field(description="of the pallets")
    words: frozenset[str]

    @model_validator(mode="after")
    def _agrees(self) -> Order:
        raise ValueError("no order is right")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def size(self) -> int:
        return len(self.lines)


class Extract(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    """Find the people.

    Rules:
        - one for each name
        - none twice
    """

    text: str = dspy.InputField(desc="what to read")
    people: list[Person] = dspy.OutputField()
    severity: Severity = dspy.OutputField(desc="of all")
    confidence: float = dspy.OutputField(ge=0, le=1)


class Undocumented(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    text: str = dspy.InputField()
    best: Person = dspy.OutputField(desc="the best of all")
    none: Person | None = dspy.OutputField()
    closed: Closed = dspy.OutputField()
    severities: list[Severity] = dspy.OutputField(min_length=1)


class Scalars(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    """Judge."""

    note: str | None = dspy.InputField()
    count: int = dspy.InputField(ge=1, default=3)
    answer: str = dspy.OutputField(max_length=40)
    right: bool = dspy.OutputField()
    number: int = dspy.OutputField(gt=0, multiple_of=2)
    ratio: float = dspy.OutputField(ge=0.5, lt=2)
    label: Literal["it's", 'a "b"', 3, True] = dspy.OutputField()
    maybe: int | None = dspy.OutputField(ge=0)
    words: list[str] = dspy.OutputField(max_length=9)
    totals: dict[str, list[float]] = dspy.OutputField()


class Rated(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    """Rate it, and say where."""

    text: str = dspy.InputField()
    stars: Stars = dspy.OutputField()
    household: Household = dspy.OutputField()


class Events(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    """Find the events."""

    since: datetime.date = dspy.InputField()
    moment: datetime.datetime = dspy.InputField()
    one: Event = dspy.InputField()
    price: decimal.Decimal = dspy.InputField()
    page: AnyUrl = dspy.InputField()
    length: datetime.timedelta = dspy.InputField()
    options: dict[str, Any] = dspy.InputField()
    events: list[Event] = dspy.OutputField()
    day: datetime.date = dspy.OutputField(desc="the first")
    when: datetime.datetime | None = dspy.OutputField()
    id: uuid.UUID = dspy.OutputField()
    total: decimal.Decimal = dspy.OutputField()
    rest: Any = dspy.OutputField()
    bare: dict = dspy.OutputField()  # type: ignore[type-arg]
    code: str = dspy.OutputField(pattern="^[A-Z]+$")
    share: float = dspy.OutputField(gt=0, le=1)
    counts: list[Annotated[int, Field(gt=0, le=9)]] = dspy.OutputField()


class Kinds(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    """Sort the parcels."""

    parcel: Parcel = dspy.InputField()
    parcels: list[Parcel] = dspy.OutputField()
    outer: Outer = dspy.OutputField()
    flags: dict[str, Flag] = dspy.OutputField()
    more: list[Flag] | None = dspy.OutputField(desc="of two\nlines")


class Unions(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    """Tell them apart."""

    one: Owner = dspy.InputField()
    pet: Cat | Dog = dspy.InputField()
    place: tuple[int, str] = dspy.InputField()
    number: int | str = dspy.InputField()
    owners: list[Owner] = dspy.OutputField()
    which: int | str | None = dspy.OutputField()
    mixed: list[Cat | Dog | int] = dspy.OutputField()
    size: float | int = dspy.OutputField()
    pair: tuple[int, Severity] = dspy.OutputField()
    words: set[str] = dspy.OutputField()


class Ruled(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    """Read the order."""

    line: Line = dspy.InputField()
    k: Annotated[int, AfterValidator(abs)] = dspy.InputField(desc="how many")
    order: Order = dspy.OutputField()
    more: dict[str, Order] = dspy.OutputField()
    number: Annotated[int, BeforeValidator(int)] = dspy.OutputField(ge=1)
    lines: list[Line] = dspy.OutputField()


RULED: dict[str, Any] = {"line": Line(sku="AB", count=2), "k": 3}


class Outline(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    """Outline it."""

    before: Node = dspy.InputField(desc="the outline so far")
    tree: Tree = dspy.InputField()
    root: Node = dspy.OutputField()
    parts: list[Node] = dspy.OutputField(desc="all of them")
    notes: dict[str, Note] = dspy.OutputField()
    best: Node | None = dspy.OutputField()
    whole: Tree = dspy.OutputField()
    branches: list[Branch] = dspy.OutputField()
    home: Address = dspy.OutputField()


class Typed(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    """Read what is there."""

    person: Person = dspy.InputField()
    others: list[Person] = dspy.InputField(desc="the others")
    severity: Severity = dspy.InputField()
    by_name: dict[str, Address] = dspy.InputField()
    answer: str = dspy.OutputField()


class Seen(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    """Say what is there."""

    image: dspy.Image = dspy.InputField(desc="the first")
    more: list[dspy.Image] = dspy.InputField()
    none: dspy.Image | None = dspy.InputField()
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Heard(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    """Write what is said."""

    audio: dspy.Audio = dspy.InputField()
    text: str = dspy.OutputField()


class Filed(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    document: dspy.File = dspy.InputField()
    summary: str = dspy.OutputField()


class Talk(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    """Answer."""

    question: str = dspy.InputField()
    image: dspy.Image | None = dspy.InputField()
    person: Person = dspy.InputField()
    history: dspy.History = dspy.InputField()
    answer: str = dspy.OutputField()
    score: float = dspy.OutputField()


HOME = Address(street="Elm", zip="1234")
ANN = Person(fullName="Ann", weight=2, home=Address(street="Oak"), kind="a", severity=Severity.HIGH, links=["x"])
BOB = Person(fullName="Bob", weight=0, age=3, home=HOME, kind="a", nick="bobby")
TYPED: dict[str, Any] = {
    "person": ANN,
    "others": [ANN, BOB],
    "severity": Severity.LOW,
    "by_name": {"a": HOME},
}
NEW_YEAR = TypeAdapter(datetime.datetime).validate_python("2026-01-01T12:00:00Z")
EVENT = Event(day=NEW_YEAR.date(), start=NEW_YEAR, id=uuid.UUID(int=1), page=AnyUrl("https://example.org"), code="A")
SINCE: dict[str, Any] = {
    "since": NEW_YEAR.date(),
    "moment": NEW_YEAR,
    "one": EVENT,
    "price": decimal.Decimal("12.50"),
    "page": AnyUrl("https://example.org"),
    "length": datetime.timedelta(minutes=90),
    "options": {"a": [1, None, {"b": True}]},
}
PARCEL = Parcel(summer=HOME, winter=HOME, inside=Box[int](thing=2))
APART: dict[str, Any] = {
    "one": Owner(pet=Cat(kind="cat"), size=1.5, where=HOME, place=(1, 2.5)),
    "pet": Dog(kind="dog", name="Rex"),
    "place": (1, "x"),
    "number": "7",
}

PNG = f"data:image/png;base64,{base64.b64encode(bytes.fromhex('89504e470d0a1a0a') + b'any pixels').decode()}"
GIF = f"data:image/gif;base64,{base64.b64encode(b'GIF89a, and more').decode()}"
WAV = base64.b64encode(b"RIFF    WAVEfmt ").decode()
PDF = f"data:application/pdf;base64,{base64.b64encode(b'%PDF-1.7').decode()}"
SEEN: dict[str, Any] = {
    "image": dspy.Image(url=PNG),
    "more": [dspy.Image(url=GIF), dspy.Image(url=PNG)],
    "none": None,
    "question": "what is it, <b>there</b>?",
}
HEARD: dict[str, Any] = {"audio": dspy.Audio(data=WAV, audio_format="wav")}
FILED: dict[str, Any] = {"document": dspy.File(file_data=PDF)}
NAMED: dict[str, Any] = {"document": dspy.File(file_data=PDF, filename="the report.pdf")}
TALK: dict[str, Any] = {
    "question": "And now?",
    "image": None,
    "person": ANN,
    "history": dspy.History(
        messages=[
            {"question": "Who?", "image": dspy.Image(url=PNG), "person": BOB, "answer": "Bob", "score": 0.5},
            {"question": "And her?", "answer": "Ann", "reasoning": "She is there."},
        ]
    ),
}
NODE = Node(title="a", children=[Node(title="b", next=Node(title="c"))], notes={"x": Note(text="d", where=HOME)})
LEAF = Leaf(kind="leaf", value=1)
OUTLINE: dict[str, Any] = {"before": NODE, "tree": Branch(kind="branch", left=LEAF, right=LEAF)}
