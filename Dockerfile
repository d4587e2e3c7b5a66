# One image for each service, and one with the `bootlink` command:
#
#     docker build --target dhcp -t bootlink/dhcp .        and tftp, blockstore, registry, command
#
# BASE is any image of Debian's family with Python 3.11 or newer and its `venv`. Where it has no iPXE (for dhcp and tftp)
# or no qemu-img (for the registry), they are installed by the base's own apt; the Python packages come by pip, as
# requirements/*.txt pin them. A folder `wheels` beside this file, if there is one, is looked through by pip too, so that
# with PIP_NO_INDEX=1 nothing is fetched (docs/containers.md).
#
# What the images share lies in layers that they share: the base, the chassis, then what is the service's own. Build
# tools stay in the stages that need them. Each service runs as user 10001, which owns nothing but its folder below
# /var/lib/bootlink; dhcp and tftp have an interpreter of their own that carries the capabilities which they need.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS base
RUN echo 'bootlink:x:10001:10001:Bootlink:/var/lib/bootlink:/usr/sbin/nologin' >>/etc/passwd \
    && echo 'bootlink:x:10001:' >>/etc/group \
    && for service in dhcp tftp tftp/loaders blockstore registry images; do \
           mkdir -p /var/lib/bootlink/$service; done \
    && chown -R 10001:10001 /var/lib/bootlink
ENV PATH=/opt/bootlink/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 BOOTLINK_LOG_FORMAT=json
LABEL org.opencontainers.image.title=Bootlink org.opencontainers.image.licenses=Apache-2.0

# Three environments: /build with the build tools, which pip installs; /opt/bootlink with what all services need, which
# uv fills from outside; and in /own, with the same paths, what a service needs besides. The images take the last two.
FROM base AS build
ARG PIP_NO_INDEX=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_FIND_LINKS=/wheels \
    UV_FIND_LINKS=/wheels UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON=/opt/bootlink UV_NO_PROGRESS=1 \
    OFFLINE=${PIP_NO_INDEX:+--no-index}
WORKDIR /src
COPY requirements/build.txt wheels* /wheels/
RUN python3 -m venv /build && /build/bin/pip install --quiet --no-compile --require-hashes -r /wheels/build.txt \
    && python3 -m venv --without-pip /opt/bootlink
COPY requirements requirements
RUN /build/bin/uv pip install --quiet $OFFLINE --require-hashes -r requirements/chassis.txt
COPY deploy/image/ready /opt/bootlink/bin/ready
COPY deploy/image/besides /src/besides

# Our own packages: all are made at once, then each is put into the folder of its image.
FROM build AS build-own
COPY libs libs
COPY services services
COPY cli cli
RUN /build/bin/uv pip install --quiet --python /build --prefix /all --no-deps --no-index --no-build-isolation \
        ./libs/* ./services/* ./cli \
    && cd /all/lib/python3*/site-packages && packages=${PWD#/all/} \
    && for image in dhcp tftp blockstore registry; do \
        mkdir -p /own/$image/$packages && mv bootlink_$image bootlink_$image-* /own/$image/$packages; done \
    && mkdir -p /own/command/$packages && mv bootlink bootlink-* /own/command/$packages \
    && mkdir -p /own/libs/$packages && mv bootlink_* /own/libs/$packages

# The chassis: what all services stand on.
FROM base AS chassis
COPY --from=build /opt/bootlink /opt/bootlink
COPY --from=build-own /own/libs /opt/bootlink

# dhcp says which loader a PC gets, if there is one, and tftp sends it: both look into the same folders.
FROM chassis AS boot-files
RUN test -d /usr/lib/ipxe || { apt-get update && apt-get install -y --no-install-recommends ipxe \
    && rm -rf /var/lib/apt/lists/*; }
COPY deploy/image/grant /usr/local/libexec/grant

FROM boot-files AS dhcp
COPY --from=build-own /own/dhcp /opt/bootlink
RUN python3 /usr/local/libexec/grant /opt/bootlink/bin/python NET_BIND_SERVICE NET_RAW
ENV BOOTLINK_DHCP_HEALTH_PORT=8601
USER 10001:10001
VOLUME /var/lib/bootlink/dhcp
HEALTHCHECK --interval=3s --timeout=5s --start-period=30s CMD ["python3", "-IS", "/opt/bootlink/bin/ready", "DHCP"]
CMD ["python", "-m", "bootlink_dhcp"]

FROM boot-files AS tftp
COPY --from=build-own /own/tftp /opt/bootlink
RUN python3 /usr/local/libexec/grant /opt/bootlink/bin/python NET_BIND_SERVICE
ENV BOOTLINK_TFTP_HEALTH_PORT=8602
USER 10001:10001
VOLUME /var/lib/bootlink/tftp
HEALTHCHECK --interval=3s --timeout=5s --start-period=30s CMD ["python3", "-IS", "/opt/bootlink/bin/ready", "TFTP"]
CMD ["python", "-m", "bootlink_tftp"]

FROM chassis AS blockstore
COPY --from=build-own /own/blockstore /opt/bootlink
ENV BOOTLINK_BLOCKSTORE_HEALTH_PORT=8603
USER 10001:10001
VOLUME /var/lib/bootlink/blockstore
HEALTHCHECK --interval=3s --timeout=5s --start-period=30s \
    CMD ["python3", "-IS", "/opt/bootlink/bin/ready", "BLOCKSTORE"]
CMD ["python", "-m", "bootlink_blockstore"]

FROM build AS build-registry
RUN UV_COMPILE_BYTECODE=0 /build/bin/uv pip install --quiet $OFFLINE --require-hashes --prefix /own \
        -r requirements/registry.txt \
    && python3 /src/besides /own /opt/bootlink && python3 -m compileall -q /own

FROM chassis AS registry
RUN command -v qemu-img || { apt-get update && apt-get install -y --no-install-recommends qemu-utils \
    && rm -rf /var/lib/apt/lists/*; }
COPY --from=build-registry /own /opt/bootlink
COPY --from=build-own /own/registry /opt/bootlink
ENV BOOTLINK_REGISTRY_HEALTH_PORT=8604
USER 10001:10001
VOLUME /var/lib/bootlink/registry
HEALTHCHECK --interval=3s --timeout=5s --start-period=60s \
    CMD ["python3", "-IS", "/opt/bootlink/bin/ready", "REGISTRY"]
CMD ["python", "-m", "bootlink_registry"]

FROM build AS build-command
RUN UV_COMPILE_BYTECODE=0 /build/bin/uv pip install --quiet $OFFLINE --require-hashes --prefix /own \
        -r requirements/command.txt \
    && python3 /src/besides /own /opt/bootlink && python3 -m compileall -q /own

FROM chassis AS command
COPY --from=build-command /own /opt/bootlink
COPY --from=build-own /own/command /opt/bootlink
USER 10001:10001
ENTRYPOINT ["python", "-m", "bootlink"]
CMD ["--help"]
