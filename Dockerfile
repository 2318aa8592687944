# Built in one stage, run in another: no compiler, no pip cache and no source tree in what is deployed.
FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7 AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /app
COPY constraints/runtime.txt constraints/
RUN /app/bin/pip install --require-hashes -r constraints/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY messages messages
COPY workers workers
COPY store store
COPY adapters adapters
COPY migrations migrations
RUN /app/bin/pip install --no-deps --no-build-isolation ./messages . \
    && /app/bin/pip uninstall --yes pip hatchling editables


FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7

RUN useradd --system --uid 10001 --create-home --home-dir /home/dspex dspex
COPY --from=build /app /app
WORKDIR /srv/dspex
COPY alembic.ini ./
COPY migrations migrations
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
ENTRYPOINT ["dspex"]
CMD ["--help"]
