"""A service that answers questions by DSPex: its rows, the outbox, and the webhook that brings the answers.

uvicorn service:app --port 8080
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import JSON, create_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dspex import ExecuteProgram, uuid7
from dspex.amqp.publisher import AmqpPublisher
from dspex.client.remote import RemoteClient
from dspex.contract.callback import Callback
from dspex.contract.events import (
    ErrorDetail,
    Event,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionEnded,
    ExecutionFailed,
)
from dspex.errors import InvalidWebhook, MessageError
from dspex.outbox import Outbox, OutboxRelay
from dspex.webhooks import check_secret, verify

SOURCE = "/questions"
SECRET_NAME = "QUESTIONS_WEBHOOK_SECRET"
"""The same on both sides: the command names the secret, and never has its value."""

MAX_BODY_BYTES = 256 * 1024  # DSPex sends a reference in the place of an event over 20 kB


class Base(DeclarativeBase):
    """The tables of this service."""


class Question(Base):
    """What somebody asked. `id` is the id of its execution, too."""

    __tablename__ = "questions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    text: Mapped[str]
    status: Mapped[str]
    outputs: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    error_code: Mapped[str | None]


class SeenWebhook(Base):
    """A webhook whose event is in its question, by `webhook-id`. Rows may go after the days that DSPex tries for."""

    __tablename__ = "seen_webhooks"

    id: Mapped[str] = mapped_column(primary_key=True)


outbox = Outbox(Base.metadata, source=SOURCE)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """In every process of the server: its connections, and a relay of the outbox."""
    engine = create_engine(os.environ["QUESTIONS_DATABASE_URL"])
    Base.metadata.create_all(engine)  # a real service has migrations: docs/outbox.md
    broker_url = os.environ["QUESTIONS_BROKER_URL"]
    publisher = AmqpPublisher(broker_url)
    app.state.engine = engine
    app.state.program_id = UUID(os.environ["QUESTIONS_PROGRAM_ID"])
    app.state.callback = Callback(url=os.environ["QUESTIONS_URL"] + "/dspex", secret=SECRET_NAME)
    app.state.secrets = [check_secret(secret) for secret in os.environ[SECRET_NAME].split()]  # two while one is changed
    with RemoteClient(broker_url, source=SOURCE, timeout=10) as app.state.dspex, OutboxRelay(outbox, engine, publisher):
        yield
    publisher.close()
    engine.dispose()


app = FastAPI(title="Questions", lifespan=lifespan)


def database(request: Request) -> Iterator[Session]:
    """A session of the request's own; what was not committed is rolled back."""
    with Session(request.app.state.engine) as session:
        yield session


async def raw_body(request: Request) -> bytes:
    """The bytes as they came: the signature is of them, not of what a parser makes of them."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413)
    return body


Database = Annotated[Session, Depends(database)]
RawBody = Annotated[bytes, Depends(raw_body)]


class Asked(BaseModel):
    """The body of a POST."""

    text: str = Field(min_length=1, max_length=10_000)


class QuestionView(BaseModel):
    """A question as it is served."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    text: str
    status: str
    outputs: dict[str, Any] | None
    error_code: str | None


# The routes are no coroutines: FastAPI runs them in threads, where a database may be waited for.
@app.post("/questions", status_code=202)
def ask(asked: Asked, request: Request, response: Response, session: Database) -> QuestionView:
    """Keep a question and have it answered: both, or neither."""
    question = Question(id=uuid7(), text=asked.text, status="pending")
    state = request.app.state
    session.add(question)
    outbox.add(
        session,
        ExecuteProgram(
            execution_id=question.id,
            program_id=state.program_id,
            inputs={"question": question.text},
            callback=state.callback,
        ),
    )
    session.commit()
    response.headers["location"] = f"/questions/{question.id}"
    return QuestionView.model_validate(question)


@app.get("/questions/{question_id}")
def show(question_id: UUID, session: Database) -> QuestionView:
    """A question, with its answer once that has come."""
    question = session.get(Question, question_id)
    if question is None:
        raise HTTPException(404)
    return QuestionView.model_validate(question)


@app.post("/dspex", status_code=204, include_in_schema=False)
def receive(body: RawBody, request: Request, session: Database) -> None:
    """The webhook: 2xx once the event is kept. Anything else, and DSPex sends it again."""
    try:
        event = verify(body, request.headers, request.app.state.secrets)
    except InvalidWebhook:
        raise HTTPException(401) from None
    except MessageError as error:
        raise HTTPException(400, error.code) from None
    end = end_of(event.data, request.app.state.dspex)
    try:
        session.add(SeenWebhook(id=event.id))
        session.flush()  # the same webhook in another thread is waited for here
    except IntegrityError:
        return  # it has come before
    if end is not None:
        settle(session, end)
    session.commit()


class End(NamedTuple):
    """How an execution ended."""

    execution_id: UUID
    status: str
    outputs: dict[str, Any] | None = None
    error: ErrorDetail | None = None


def end_of(event: Event, dspex: RemoteClient) -> End | None:
    """What an event says; None for the types of events that may come to be.

    Raises:
        DspexError: it is a reference, and the execution could not be asked for. The answer is 500, and it comes again.
    """
    match event:
        case ExecutionCompleted():
            return End(event.execution_id, "completed", outputs=event.outputs)
        case ExecutionFailed():
            return End(event.execution_id, "failed", error=event.error)
        case ExecutionCancelled():
            return End(event.execution_id, "cancelled")
        case ExecutionEnded():
            execution = dspex.get_execution(event.execution_id)
            return End(event.execution_id, execution.status, execution.outputs, execution.error)
        case _:
            return None


def settle(session: Session, end: End) -> None:
    """Write an end to its question. One that is not there any more needs none."""
    question = session.get(Question, end.execution_id)
    if question is not None:
        question.status = end.status
        question.outputs = end.outputs
        question.error_code = None if end.error is None else end.error.code
