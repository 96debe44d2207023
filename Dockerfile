# Two images from one file:
#   docker build --tag lstm-service .                              without TensorFlow
#   docker build --tag lstm-service:tensorflow --target tensorflow .
#
#   docker run --rm --publish 8000:8000 --volume lstm-data:/data lstm-service
#
# The Python is the newest that TensorFlow has wheels for; every package is the one that
# constraints.txt pins.
FROM python:3.13.13-slim-trixie AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# The project's own wheel, with the native kernel in it: this image is the same Python on the same
# Debian with a C compiler, which the images that run do not have.
FROM python:3.13.13-trixie AS wheel
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    REQUIRE_NATIVE_KERNEL=1
WORKDIR /src
COPY constraints.txt ./
RUN pip install --constraint constraints.txt numpy setuptools
COPY pyproject.toml README.md setup.py ./
COPY lstm_core lstm_core
COPY service service
RUN pip wheel --no-build-isolation --no-deps --wheel-dir /dist .

# What it depends on, the shared store's driver and gRPC too, in a virtual environment without pip: these
# layers stay while only code changes.
FROM base AS core-packages
WORKDIR /src
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['redis'], *p['optional-dependencies']['grpc'], sep='\n')" > core.txt \
    && python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --constraint constraints.txt --requirement core.txt

FROM core-packages AS tensorflow-packages
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['tensorflow'], sep='\n')" > tensorflow.txt \
    && pip --python /opt/venv/bin/python install --constraint constraints.txt --requirement tensorflow.txt

FROM core-packages AS core-venv
COPY --from=wheel /dist /dist
RUN pip --python /opt/venv/bin/python install --no-deps /dist/*.whl

FROM tensorflow-packages AS tensorflow-venv
COPY --from=wheel /dist /dist
RUN pip --python /opt/venv/bin/python install --no-deps /dist/*.whl

# What both images share: a user that owns nothing but the directory of the embedded store, which is to
# be a volume: `--volume lstm-data:/data`. Nothing else is written, so the root may be read-only.
FROM base AS runtime
RUN groupadd --gid 10001 lstm \
    && useradd --uid 10001 --gid lstm --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin lstm \
    && install --directory --owner lstm --group lstm --mode 0700 /data
ENV PATH=/opt/venv/bin:$PATH \
    LSTM_DATA_DIR=/data \
    LSTM_HOST=0.0.0.0
WORKDIR /
VOLUME /data
USER 10001:10001
EXPOSE 8000
# Move the port with LSTM_PORT rather than --port, so that the health check finds it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('LSTM_PORT', '8000') + '/healthz', timeout=2)"]
ENTRYPOINT ["lstm-service", "serve"]

FROM runtime AS tensorflow
COPY --from=tensorflow-venv /opt/venv /opt/venv

# The last stage is the one that is built when none is named.
FROM runtime AS cpu
COPY --from=core-venv /opt/venv /opt/venv
