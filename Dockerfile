# Harborhook's one image: operator, dispatcher and harborctl, which are compiled before.
#
#   cargo build --release --bin operator --bin dispatcher --bin harborctl
#   docker build --build-arg PROGRAMS=target/release --tag harborhook .
ARG BASE=debian:bookworm-slim
FROM ${BASE}
# Folder of the programs, seen from this one.
ARG PROGRAMS=target/release
LABEL org.opencontainers.image.title="Harborhook" \
      org.opencontainers.image.description="Webhooks as Kubernetes resources" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY ${PROGRAMS}/operator ${PROGRAMS}/dispatcher ${PROGRAMS}/harborctl /usr/local/bin/
ENV PATH=/usr/local/bin:/usr/bin:/bin
# By number, so that a cluster can tell that it is not root. Nothing is written outside of what is mounted.
USER 65532:65532
WORKDIR /
CMD ["operator"]
