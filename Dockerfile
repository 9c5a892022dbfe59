# openai-meter as an image: `docker build -t openai-meter .`, then
# `docker run -p 8080:8080 -p 8081:8081 -v meter:/var/lib/openai-meter openai-meter`.
# Give it time to finish its calls: `docker stop --time 60`.

FROM python:3.12-slim AS build
WORKDIR /src
RUN python3 -m venv /build && python3 -m venv /opt/openai-meter
COPY requirements/build.txt requirements/run.txt requirements/
RUN /build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt \
 && /opt/openai-meter/bin/pip install --no-cache-dir --require-hashes -r requirements/run.txt
COPY . .
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /opt/openai-meter/bin/pip install --no-cache-dir --no-deps --no-index /wheel/*.whl

FROM python:3.12-slim
# Postgres wants a user with a name.
RUN useradd --uid 10001 --create-home --home-dir /var/lib/openai-meter --shell /usr/sbin/nologin meter
COPY --from=build /opt/openai-meter /opt/openai-meter
ENV PATH=/opt/openai-meter/bin:$PATH \
    METER_DATA_DIR=/var/lib/openai-meter \
    METER_LISTEN=0.0.0.0:8080 \
    METER_DASHBOARD_LISTEN=0.0.0.0:8081
USER meter
VOLUME /var/lib/openai-meter
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/_meter/healthz', timeout=4)"]
ENTRYPOINT ["openai-meter"]
CMD ["serve"]
